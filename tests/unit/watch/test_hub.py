"""What watchers are given live and from history, and where a watch starts."""

from __future__ import annotations

import pytest

from datastore.shim.mvcc.ops import DeleteRange, Put
from datastore.shim.watch.watcher import State, WatchSpec
from tests.support.history import check_complete, check_watch
from tests.support.watching import PREFIX, World, revisions, simulated, since


@simulated
async def test_a_watch_without_a_start_gets_what_comes_after_it() -> None:
    async with World() as world:
        world.put(b"a/1")
        _, watch = world.watch(world.stream(), PREFIX)
        assert watch.created_revision == 2
        world.put(b"a/2")
        world.put(b"b")
        assert revisions(watch) == [[3]]
        assert [response.revision for response in watch.responses] == [3]


@simulated
async def test_the_events_of_a_revision_are_one_response() -> None:
    async with World() as world:
        _, watch = world.watch(world.stream(), PREFIX)
        world.txn(Put(b"a/2"), Put(b"b"), Put(b"a/1"))
        assert [event.kv.key for event in watch.responses[0].events] == [b"a/2", b"a/1"]
        assert len(watch.responses) == 1


@simulated
async def test_each_revision_of_a_batch_is_its_own_response() -> None:
    async with World() as world:
        _, watch = world.watch(world.stream(), PREFIX)
        world.write(Put(b"a/1"), Put(b"a/1"), DeleteRange(b"a/1"))
        assert revisions(watch) == [[2], [3], [4]]


@simulated
async def test_a_delete_event_has_key_and_mod_revision_and_the_previous_value_if_asked() -> None:
    async with World() as world:
        stream = world.stream()
        _, bare = world.watch(stream, PREFIX)
        _, full = world.watch(stream, since(0, prev_kv=True))
        world.put(b"a/1", b"old")
        world.delete(b"a/1")
        deleted = bare.events[1]
        assert (deleted.deleted, deleted.kv.key, deleted.kv.mod_revision) == (True, b"a/1", 3)
        assert (deleted.kv.version, deleted.kv.create_revision, deleted.prev) == (0, 0, None)
        assert full.events[1].prev == full.events[0].kv
        for watch in (bare, full):
            check_watch(watch, world.log)


@simulated
async def test_filters_drop_events_and_an_empty_response_is_not_sent() -> None:
    async with World() as world:
        stream = world.stream()
        _, deletes = world.watch(stream, WatchSpec(b"a/", b"a0", no_put=True))
        _, puts = world.watch(stream, WatchSpec(b"a/", b"a0", no_delete=True))
        world.put(b"a/1")
        world.delete(b"a/1")
        assert revisions(deletes) == [[3]]
        assert revisions(puts) == [[2]]


@simulated
async def test_watchers_of_equal_range_and_options_share_the_bytes() -> None:
    async with World() as world:
        streams = [world.stream() for _ in range(3)]
        for stream in streams:
            world.watch(stream, PREFIX)
        world.put(b"a/1")
        bodies = [stream.bodies[0][1] for stream in streams]
        assert bodies[0] is bodies[1] is bodies[2]


@simulated
async def test_a_cancelled_watch_gets_nothing_more() -> None:
    async with World() as world:
        stream = world.stream()
        watcher, watch = world.watch(stream, PREFIX)
        world.hub.cancel(watcher)
        world.hub.cancel(watcher)
        stream.forget(watcher)
        world.put(b"a/1")
        await world.settle()
        assert watch.responses == []
        assert world.hub.counts().watchers == world.hub.counts().streams == 0


@simulated
async def test_a_closed_stream_leaves_nothing_behind() -> None:
    async with World(stream_bytes=1) as world:
        stream = world.stream()
        stream.stalled = True
        world.put(b"a/1")
        for spec in (PREFIX, PREFIX, since(99), since(2)):
            watcher, _ = world.watch(stream, spec)
            stream.forget(watcher)
        world.hub.close(stream)
        world.hub.close(stream)
        world.put(b"a/1")
        await world.settle()
        assert stream.bodies == []
        assert world.hub.counts()[:3] == (0, 0, 0)


@simulated
async def test_a_start_revision_is_replayed_inclusively_and_goes_on_live() -> None:
    async with World() as world:
        for _ in range(4):
            world.put(b"a/1")
        watcher, watch = world.watch(world.stream(), since(3))
        assert watch.responses == []  # `created` has to come first
        await world.settle()
        assert watcher.state is State.SYNCED
        world.put(b"a/1")
        assert [event.revision for event in watch.events] == [3, 4, 5, 6]


@simulated
async def test_replayed_events_carry_the_current_revision_in_the_header() -> None:
    async with World() as world:
        for _ in range(4):
            world.put(b"a/1")
        world.put(b"b")
        _, watch = world.watch(world.stream(), since(2))
        await world.settle()
        assert [response.revision for response in watch.responses] == [6]


@simulated
async def test_a_future_start_waits_without_earlier_events_or_progress() -> None:
    async with World() as world:
        stream = world.stream()
        spec = WatchSpec(b"a/", b"a0", 4, progress_notify=True)
        _, watch = world.watch(stream, spec)
        world.put(b"a/1")
        world.put(b"a/1")
        world.hub.progress_tick()
        world.hub.request_progress(stream)
        assert watch.responses == []
        world.put(b"a/1")
        assert revisions(watch) == [[4], []]
        assert stream.manual == [4]


@simulated
async def test_a_future_watch_may_be_cancelled() -> None:
    async with World() as world:
        stream = world.stream()
        first, _ = world.watch(stream, since(3))
        _, second = world.watch(stream, since(3))
        world.hub.cancel(first)
        stream.forget(first)
        world.put(b"a/1")
        world.put(b"a/1")
        assert revisions(second) == [[3]]


@simulated
async def test_a_start_below_the_compacted_revision_is_canceled_after_creation() -> None:
    async with World() as world:
        for _ in range(5):
            world.put(b"a/1")
        world.compact(4)
        watcher, watch = world.watch(world.stream(), since(3))
        assert not watch.canceled_at
        await world.settle()
        assert (watch.canceled_at, watcher.state) == (4, State.DONE)
        assert watch.responses == []


@pytest.mark.parametrize("pruned", [False, True])
@simulated
async def test_a_start_at_the_compacted_revision_works(pruned: bool) -> None:
    async with World(ring_bytes=0) as world:
        world.put(b"a/1", b"x")
        world.put(b"a/2", b"y")
        world.delete(b"a/1")
        world.put(b"a/2", b"z")
        world.compact(4)
        if pruned:
            world.prune()
        _, watch = world.watch(world.stream(), since(4, prev_kv=True))
        watch.compacted = 4
        await world.settle()
        check_complete(watch, world.log, 5)
        check_watch(watch, world.log)
