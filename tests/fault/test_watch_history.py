"""Watchers of a real server see every change once, in order, over crashes and compactions."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import grpc.aio
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, prefix_end
from tests.support.linearizability import Workload
from tests.support.observers import Observer, check_acknowledged, to_log
from tests.support.running import Server

ALL = b"linear/"
WANTED: list[tuple[bytes, bytes, dict[str, Any]]] = [
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
    await observe(server, crashes)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
async def test_watch_properties_over_many_crashes(seed: int, server: Server) -> None:
    await observe(server, crashes=12, seed=seed)


async def observe(server: Server, crashes: int, seed: int = 0) -> None:
    """Write, compact and crash while observers watch; then compare what they saw."""
    workload = Workload(server.target, seed=seed)
    everything, *others = (Observer(server.target, *wanted) for wanted in WANTED)
    compacted, stop, done = 0, asyncio.Event(), asyncio.Event()

    async def compact() -> None:
        nonlocal compacted
        async with Client(server.target) as client:
            while True:
                await workload.history.until_completed(100)
                # What the first observer has not seen must stay: its record is the log.
                compacted = max(compacted, everything.segments[-1].reached - 20)
                with suppress(grpc.aio.AioRpcError):
                    await client.compact(compacted)
                    done.set()

    async with asyncio.TaskGroup() as group:
        work = group.create_task(workload.run(stop))
        for observer in (everything, *others):
            group.create_task(observer.run())
        await workload.history.until_completed(50)
        compaction = group.create_task(compact())
        for _ in range(crashes):
            await workload.history.until_completed(150)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        await workload.history.until_completed(400)
        await done.wait()
        compaction.cancel()
        stop.set()
        await work
        async with Client(server.target) as client:
            final = await client.revision()
        for observer in (everything, *others):
            observer.finish(final)

    log = to_log(everything)
    check_acknowledged(workload.history.entries, log)
    everything.check(log, compacted)
    for observer in others:
        observer.check(log, compacted)
