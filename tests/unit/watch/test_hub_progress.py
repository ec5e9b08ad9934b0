"""When watchers are told of progress, and what the hub tells of itself."""

from __future__ import annotations

import asyncio

import pytest

from datastore.shim.watch.watcher import WatchSpec
from tests.support.history import check_watch
from tests.support.watching import PREFIX, World, simulated, since


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
