"""What watchers are given, when, and what happens to those who cannot keep up."""

from __future__ import annotations

import asyncio

import pytest

from datastore.shim.mvcc.ops import Compact, DeleteRange, Put
from datastore.shim.mvcc.store import Store
from datastore.shim.watch.watcher import State, WatchSpec
from tests.support.history import Watch, check_complete, check_watch
from tests.support.watching import World, simulated

PREFIX = WatchSpec(b"a/", b"a0")


def since(revision: int, *, prev_kv: bool = False, fragment: bool = False) -> WatchSpec:
    return WatchSpec(b"a/", b"a0", revision, prev_kv=prev_kv, fragment=fragment)


def revisions(watch: Watch) -> list[list[int]]:
    return [[event.revision for event in response.events] for response in watch.responses]


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


@simulated
async def test_a_slow_stream_holds_up_nobody_and_loses_nothing() -> None:
    async with World(stream_bytes=100) as world:
        slow, quick = world.stream(), world.stream()
        slow.stalled = True
        watcher, late = world.watch(slow, PREFIX)
        _, other = world.watch(slow, WatchSpec(b"b"))
        _, live = world.watch(quick, PREFIX)
        for _ in range(20):
            world.put(b"a/1", b"v" * 40)
        await world.settle()
        assert len(live.events) == 20
        assert len(late.events) < 5
        assert watcher.state is State.UNSYNCED
        assert other.events == []
        slow.drain()
        await world.settle()
        assert watcher.state is State.SYNCED
        check_complete(late, world.log, world.store.revision)
        check_watch(late, world.log)


@simulated
async def test_a_watcher_that_compaction_overtakes_is_canceled() -> None:
    async with World(stream_bytes=1) as world:
        slow, quick = world.stream(), world.stream()
        slow.stalled = True
        _, late = world.watch(slow, PREFIX)
        _, live = world.watch(quick, PREFIX)
        for _ in range(4):
            world.put(b"a/1")
        world.compact(5)
        assert late.canceled_at == 5
        assert not live.canceled_at
        slow.drain()
        world.put(b"a/1")
        await world.settle()
        assert len(live.events) == 5
        assert len(late.events) == 1


@simulated
async def test_a_compaction_at_what_a_slow_watcher_needs_next_does_not_cancel_it() -> None:
    async with World(stream_bytes=1, ring_bytes=0) as world:
        slow = world.stream()
        slow.stalled = True
        _, late = world.watch(slow, since(0, prev_kv=True))
        world.put(b"a/1")
        world.delete(b"a/1")
        world.put(b"a/2")
        world.compact(3)
        world.prune()
        slow.drain()
        await world.settle()
        assert not late.canceled_at
        check_complete(late, world.log, 4)
        check_watch(late, world.log)


@pytest.mark.parametrize("ring_bytes", [0, 1 << 20])
@simulated
async def test_compaction_while_history_is_being_read_cancels_whom_it_overtakes(
    ring_bytes: int,
) -> None:
    async with World(ring_bytes=ring_bytes, cache_bytes=0) as world:
        for _ in range(6):
            world.put(b"a/1")
        world.open.clear()
        stream = world.stream()
        _, old = world.watch(stream, since(3))
        _, new = world.watch(stream, since(6, prev_kv=True))
        await world.settle()
        assert world.reads
        world.compact(6)
        world.prune()
        assert old.canceled_at == 6
        world.open.set()
        await world.settle()
        check_complete(new, world.log, 7)
        check_watch(new, world.log)
        assert old.responses == []


@pytest.mark.parametrize("prev_kv", [False, True])
@simulated
async def test_compaction_in_the_commit_that_a_synced_watcher_misses_does_not_cancel_it(
    prev_kv: bool,
) -> None:
    async with World(cache_bytes=0) as world:
        world.put(b"a/1")
        _, live = world.watch(world.stream(), since(0, prev_kv=prev_kv))
        # A tail brings several commits of another server at once, and no value is in memory.
        world.write(Put(b"a/1", b"x"), Put(b"a/1", b"y"), Compact(4))
        assert live.events == []
        live.compacted = 4
        await world.settle()
        assert not live.canceled_at
        check_complete(live, world.log, 4)
        check_watch(live, world.log)
        world.put(b"a/1")
        await world.settle()
        check_complete(live, world.log, 5)


@simulated
async def test_a_value_that_was_let_go_and_pruned_cancels_whoever_needs_it() -> None:
    async with World(cache_bytes=0) as world:
        _, live = world.watch(world.stream(), PREFIX)
        world.write(Put(b"a/1", b"x"), Put(b"a/1", b"y"), Compact(3))
        world.prune()
        await world.settle()
        assert live.canceled_at == 3


@simulated
async def test_pruning_by_a_server_that_compacted_first_cancels_too() -> None:
    async with World(ring_bytes=0, cache_bytes=0) as world:
        for _ in range(6):
            world.put(b"a/1")
        world.pruned = 5
        for row in sorted(world.rows)[:4]:
            del world.rows[row]
        _, watch = world.watch(world.stream(), since(3))
        await world.settle()
        assert watch.canceled_at == 5


@simulated
async def test_a_page_that_pruning_has_just_reached_cancels() -> None:
    async with World(ring_bytes=0, cache_bytes=0) as world:
        for _ in range(6):
            world.put(b"a/1")
        world.compact(4)
        world.pruned = 5
        _, watch = world.watch(world.stream(), since(4))
        await world.settle()
        assert (watch.canceled_at, watch.events) == (5, [])


@simulated
async def test_what_is_written_during_a_read_is_read_next() -> None:
    async with World(ring_bytes=0, cache_bytes=0) as world:
        world.put(b"a/1")
        world.open.clear()
        watcher, watch = world.watch(world.stream(), since(2))
        await world.settle()
        world.put(b"a/1")
        world.open.set()
        await world.settle()
        assert watcher.state is State.SYNCED
        check_complete(watch, world.log, 3)


@simulated
async def test_a_stream_that_drains_during_a_read_for_others_skips_nothing() -> None:
    async with World(stream_bytes=1, ring_bytes=0, cache_bytes=0) as world:
        slow = world.stream()
        slow.stalled = True
        _, late = world.watch(slow, PREFIX)
        for _ in range(4):
            world.put(b"a/1")
            await world.settle()
        world.open.clear()
        _, other = world.watch(world.stream(), since(5))
        await world.settle()
        slow.drain()
        world.open.set()
        await world.settle()
        check_complete(late, world.log, 5)
        check_complete(other, world.log, 5)


@simulated
async def test_a_stream_that_stalls_again_gets_one_response_too_many_at_most() -> None:
    async with World(stream_bytes=1) as world:
        slow = world.stream()
        slow.stalled = True
        for _ in range(5):
            world.watch(slow, PREFIX)
        world.put(b"a/1")
        world.put(b"a/1")
        assert len(slow.bodies) == 1
        slow.drain()
        slow.stalled = True
        await world.settle()
        assert len(slow.bodies) == 2


@simulated
async def test_fragments_start_where_their_watcher_resumes() -> None:
    async with World(fragment_bytes=100) as world:
        stream = world.stream()
        for _ in range(6):
            world.put(b"a/1", b"v" * 40)
        _, low = world.watch(stream, since(2, fragment=True))
        _, high = world.watch(stream, since(5, fragment=True))
        await world.settle()
        check_complete(low, world.log, 7)
        check_complete(high, world.log, 7)


@simulated
async def test_a_previous_value_that_is_not_cached_is_fetched_and_publish_does_not_wait() -> None:
    async with World(cache_bytes=0) as world:
        stream = world.stream()
        world.put(b"a/1", b"old")
        watcher, full = world.watch(stream, since(0, prev_kv=True))
        world.open.clear()
        world.put(b"a/1", b"new")
        assert watcher.state is State.UNSYNCED
        world.open.set()
        await world.settle()
        assert watcher.state is State.SYNCED
        assert full.events[0].prev is not None
        check_watch(full, world.log)
        check_complete(full, world.log, 3)


@simulated
async def test_a_watcher_that_needs_no_previous_value_stays_live_meanwhile() -> None:
    async with World() as world:
        world.put(b"a/1", b"old")
        world.store.cache.drop(world.store.index.latest[b"a/1"])
        _, bare = world.watch(world.stream(), PREFIX)
        full, _ = world.watch(world.stream(), since(0, prev_kv=True))
        world.put(b"a/1", b"new")
        assert revisions(bare) == [[3]]
        assert full.state is State.UNSYNCED


@simulated
async def test_catching_up_is_batched_by_at_most_a_thousand_revisions() -> None:
    async with World(ring_bytes=8 << 20) as world:
        for _ in range(2500):
            world.commit(Put(b"a/1"))
        _, watch = world.watch(world.stream(), since(2))
        await world.settle()
        assert [len(response.events) for response in watch.responses] == [1000, 1000, 500]
        check_watch(watch, world.log)


@simulated
async def test_a_herd_that_resumes_shares_the_reads() -> None:
    async with World(ring_bytes=0, cache_bytes=0) as world:
        for n in range(700):
            world.put(b"a/%d" % (n % 7), b"v%d" % n)
        watches = [
            world.watch(world.stream(), since(2 + n * 20, prev_kv=True))[1] for n in range(30)
        ]
        await world.settle()
        assert len(world.reads) < 10
        for watch in watches:
            check_complete(watch, world.log, world.store.revision)
            check_watch(watch, world.log)


@simulated
async def test_a_narrow_watch_fetches_only_its_own_values() -> None:
    async with World(ring_bytes=0, cache_bytes=0) as world:
        for n in range(300):
            world.put(b"b/%d" % n)
        world.put(b"a/1")
        _, watch = world.watch(world.stream(), since(2))
        await world.settle()
        assert world.reads == ["values"]
        check_complete(watch, world.log, world.store.revision)


@simulated
async def test_a_watcher_that_comes_during_a_read_is_served_by_the_next() -> None:
    async with World(ring_bytes=0, cache_bytes=0) as world:
        world.put(b"b")
        world.put(b"a/1")
        world.open.clear()
        world.watch(world.stream(), since(2))
        await world.settle()
        _, late = world.watch(world.stream(), WatchSpec(b"b", start_revision=2))
        world.open.set()
        await world.settle()
        assert revisions(late) == [[2]]


@simulated
async def test_a_store_that_is_away_delays_those_who_lag_and_nobody_else() -> None:
    async with World(ring_bytes=0, cache_bytes=0) as world:
        world.put(b"a/1")
        world.away = True
        _, late = world.watch(world.stream(), since(2))
        await world.settle()
        assert late.events == []
        world.away = False
        await world.settle()
        check_complete(late, world.log, 2)


@simulated
async def test_a_store_that_is_away_does_not_delay_those_whom_the_ring_serves() -> None:
    async with World(stream_bytes=1, ring_bytes=4000, cache_bytes=0) as world:
        for _ in range(20):
            world.put(b"a/1")
        world.open.clear()
        _, old = world.watch(world.stream(), since(2, prev_kv=True))
        await world.settle()
        near = world.stream()
        near.stalled = True
        _, late = world.watch(near, WatchSpec(b"b", no_put=True))
        world.put(b"b")
        world.delete(b"b")
        world.put(b"b")
        world.delete(b"b")
        assert len(late.events) == 1
        near.drain()
        await world.settle()
        assert len(late.events) == 2
        assert old.events == []


@simulated
async def test_a_store_that_was_loaded_anew_makes_everybody_catch_up() -> None:
    async with World() as world:
        stream = world.stream()
        _, live = world.watch(stream, PREFIX)
        _, near = world.watch(stream, since(3))
        _, far = world.watch(stream, since(9))
        world.put(b"a/1")
        for _ in range(4):
            world.commit(Put(b"a/1"), publish=False)
        world.hub.reset(world.store)
        await world.settle()
        world.put(b"a/1")
        assert [event.revision for event in live.events] == [2, 3, 4, 5, 6, 7]
        assert [event.revision for event in near.events] == [3, 4, 5, 6, 7]
        assert far.events == []
        assert world.hub.revision == 7


@simulated
async def test_a_store_that_was_loaded_anew_cancels_those_it_cannot_tell() -> None:
    async with World() as world:
        _, live = world.watch(world.stream(), PREFIX)
        world.put(b"a/1")
        for _ in range(4):
            world.commit(Put(b"a/1"), publish=False)
        world.commit(Compact(6), publish=False)
        world.hub.reset(world.store)
        assert live.canceled_at == 6
        world.hub.reset(Store(6, 6))
        assert world.hub.revision == 6


@pytest.mark.parametrize("start", [0, 2])
@simulated
async def test_a_large_revision_is_cut_only_for_those_who_asked(start: int) -> None:
    async with World(fragment_bytes=300) as world:
        stream = world.stream()
        if start:
            world.txn(*(Put(b"a/%d" % n, b"v" * 80) for n in range(9)))
        _, whole = world.watch(stream, since(start))
        _, cut = world.watch(stream, since(start, fragment=True))
        if not start:
            world.txn(*(Put(b"a/%d" % n, b"v" * 80) for n in range(9)))
        await world.settle()
        sizes = [len(body) for watch_id, body in stream.bodies if watch_id == 1]
        assert len(sizes) > 2
        assert max(sizes) <= 300
        assert len([1 for watch_id, _ in stream.bodies if watch_id == 0]) == 1
        assert whole.events == cut.events
        check_watch(cut, world.log)


@simulated
async def test_manual_progress_is_answered_at_once_when_all_are_synced() -> None:
    async with World() as world:
        stream = world.stream()
        world.watch(stream, PREFIX)
        world.watch(stream, WatchSpec(b"b"))
        world.put(b"a/1")
        world.hub.request_progress(stream)
        assert stream.manual == [2]


@simulated
async def test_manual_progress_without_watchers_is_not_answered() -> None:
    async with World() as world:
        stream = world.stream()
        world.hub.request_progress(stream)
        world.watch(stream, PREFIX)
        world.put(b"a/1")
        await world.settle()
        assert stream.manual == []


@simulated
async def test_manual_progress_is_kept_once_until_all_have_caught_up() -> None:
    async with World(ring_bytes=0, cache_bytes=0) as world:
        stream = world.stream()
        world.put(b"a/1")
        world.open.clear()
        world.watch(stream, WatchSpec(b"b"))
        _, late = world.watch(stream, since(2))
        for _ in range(3):
            world.hub.request_progress(stream)
        await world.settle()
        assert stream.manual == []
        world.open.set()
        await world.settle()
        assert stream.manual == [2]
        check_watch(late, world.log)


@simulated
async def test_cancelling_the_last_that_lags_answers_the_request() -> None:
    async with World(ring_bytes=0, cache_bytes=0) as world:
        stream = world.stream()
        world.put(b"a/1")
        world.open.clear()
        world.watch(stream, WatchSpec(b"b"))
        late, _ = world.watch(stream, since(2))
        world.hub.request_progress(stream)
        world.hub.cancel(late)
        assert stream.manual == []  # `canceled` has to come first
        stream.forget(late)
        world.open.set()
        await world.settle()
        assert stream.manual == [2]


@simulated
async def test_progress_that_a_cancellation_frees_comes_after_it() -> None:
    async with World() as world:
        stream = world.stream()
        for _ in range(4):
            world.put(b"a/1")
        world.compact(4)
        world.watch(stream, WatchSpec(b"b"))
        _, overtaken = world.watch(stream, since(2))
        world.hub.request_progress(stream)
        await world.settle()
        assert stream.manual == [5]
        assert overtaken.responses == []


@simulated
async def test_a_blocked_stream_keeps_its_progress_request_until_it_drains() -> None:
    async with World(stream_bytes=1) as world:
        stream = world.stream()
        stream.stalled = True
        world.watch(stream, PREFIX)
        world.put(b"a/1")
        world.hub.request_progress(stream)
        world.hub.progress_tick()
        assert stream.manual == []
        stream.drain()
        await world.settle()
        assert stream.manual == [2]


@simulated
async def test_periodic_progress_goes_to_the_idle_who_asked_for_it() -> None:
    async with World() as world:
        stream = world.stream()
        spec = WatchSpec(b"a/", b"a0", progress_notify=True)
        world.watch(stream, spec, 5)
        world.watch(stream, PREFIX, 6)
        world.put(b"b")
        world.hub.progress_tick()
        world.put(b"a/1")
        world.hub.progress_tick()
        world.hub.progress_tick()
        assert stream.notified == [(5, 2), (5, 3)]


@simulated
async def test_periodic_progress_waits_for_those_who_lag() -> None:
    async with World(ring_bytes=0, cache_bytes=0) as world:
        stream = world.stream()
        world.put(b"a/1")
        world.open.clear()
        world.watch(stream, WatchSpec(b"a/", b"a0", 2, progress_notify=True), 1)
        await world.settle()
        world.hub.progress_tick()
        assert stream.notified == []
        world.open.set()
        await world.settle()
        world.hub.progress_tick()
        world.hub.progress_tick()
        assert stream.notified == [(1, 2)]


@simulated
async def test_counts_and_the_horizon_tell_of_those_who_lag() -> None:
    async with World(stream_bytes=1) as world:
        stream = world.stream()
        stream.stalled = True
        world.watch(stream, PREFIX)
        assert world.hub.horizon() is None
        world.put(b"a/1")
        world.put(b"a/1")
        assert world.hub.horizon() == 3
        assert world.hub.counts() == (1, 1, 1, 1)


@simulated
async def test_the_task_ends_when_it_is_cancelled() -> None:
    async with World() as world:
        task = asyncio.get_running_loop().create_task(world.hub.run())
        await world.settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
