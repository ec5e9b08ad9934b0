"""What happens to watchers that cannot keep up: slow streams, compaction, reads of history."""

from __future__ import annotations

import pytest

from datastore.shim.mvcc.ops import Compact, Put
from datastore.shim.mvcc.store import Store
from datastore.shim.watch.watcher import State, WatchSpec
from tests.support.history import check_complete, check_watch
from tests.support.watching import PREFIX, World, revisions, simulated, since


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
async def test_what_is_fetched_at_once_is_bounded_when_large_values_follow_small_ones() -> None:
    async with World(ring_bytes=0, cache_bytes=0, page_bytes=5000) as world:
        for n in range(500):
            world.put(b"a/%d" % n)
        for n in range(40):
            world.put(b"a/%d" % n, bytes(1000))
        for n in range(40):
            world.put(b"a/%d" % n, b"end")
        _, watch = world.watch(world.stream(), since(2))
        _, full = world.watch(world.stream(), since(2, prev_kv=True))
        await world.settle()
        assert 1000 <= max(world.fetched) < 6000
        assert world.store.revision == 581
        for seen in (watch, full):
            check_complete(seen, world.log, 581)
            check_watch(seen, world.log)


@simulated
async def test_a_revision_larger_than_a_page_is_fetched_page_by_page() -> None:
    async with World(ring_bytes=0, cache_bytes=0, page_bytes=1000) as world:
        world.txn(*(Put(b"a/%d" % n, bytes(400)) for n in range(10)))
        world.delete(b"a/", b"a0")
        _, watch = world.watch(world.stream(), since(2, prev_kv=True))
        await world.settle()
        assert revisions(watch) == [[2] * 10 + [3] * 10]
        assert max(world.fetched) < 1400
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
