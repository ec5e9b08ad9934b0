"""Watchers of a real server see every change once, in order, over crashes and compactions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import grpc.aio
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import prefix_end
from tests.support.linearizability import Workload
from tests.support.observers import Observer, Wanted, check_acknowledged, observe_as, to_log
from tests.support.permits import WANTED as USERS_WANTED
from tests.support.permits import GuardedWorkload
from tests.support.running import Server

ALL = b"linear/"
WANTED: list[Wanted] = [
    (ALL, prefix_end(ALL), {}),
    (ALL, prefix_end(ALL), {"prev_kv": True, "fragment": True}),
    (ALL, prefix_end(ALL), {"filters": [pb.WatchCreateRequest.NOPUT], "prev_kv": True}),
    (ALL, prefix_end(ALL), {"filters": [pb.WatchCreateRequest.NODELETE]}),
    (ALL, b"\0", {"progress_notify": True}),
    (b"linear/0/0", b"", {"prev_kv": True}),
    (b"linear/0/1", b"linear/2", {}),
]


@pytest.mark.parametrize("crashes", [0, 3])
async def test_watch_properties(crashes: int, server: Server) -> None:
    workload = Workload(server.target)
    await observe(workload, observe_as(workload, 0, WANTED), server, crashes)


async def test_watch_properties_while_auth_changes(server: Server) -> None:
    workload = GuardedWorkload(server.target)
    await workload.enable()
    root, user = observe_as(workload, 0, WANTED[:2]), observe_as(workload, 1, USERS_WANTED)
    await observe(workload, [*root, *user], server, crashes=2)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
async def test_watch_properties_over_many_crashes(seed: int, server: Server) -> None:
    workload = Workload(server.target, seed=seed)
    await observe(workload, observe_as(workload, 0, WANTED), server, crashes=12)


async def observe(
    workload: Workload, observers: Sequence[Observer], server: Server, crashes: int
) -> None:
    """Write, compact and crash while observers watch; then compare what they saw.

    The first of them watches everything, without filters.
    """
    everything = observers[0]
    compacted, stop, done = 0, asyncio.Event(), asyncio.Event()

    async def compact() -> None:
        nonlocal compacted
        while True:
            await workload.history.until_completed(100)
            # What the first observer has not seen must stay: its record is the log.
            compacted = max(compacted, everything.segments[-1].reached - 20)
            with suppress(grpc.aio.AioRpcError):
                async with workload.connect(server.target, 0) as client:
                    await client.compact(compacted)
                    done.set()

    async with asyncio.TaskGroup() as group:
        work = group.create_task(workload.run(stop))
        for observer in observers:
            group.create_task(observer.run())
        await workload.history.until_completed(50)
        compaction = group.create_task(compact())
        for _ in range(crashes):
            await workload.history.until_completed(150)
            await workload.history.restart(server)
        await workload.history.until_completed(400)
        await done.wait()
        compaction.cancel()
        stop.set()
        await work
        async with workload.connect(server.target, 0) as client:
            final = await client.revision()
        for observer in observers:
            observer.finish(final)

    log = to_log(everything)
    check_acknowledged(workload.history.entries, log)
    for observer in observers:
        observer.check(log, compacted)
