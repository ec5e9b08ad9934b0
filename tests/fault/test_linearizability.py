"""What clients were told stays true: concurrently, over crashes, pauses and compactions."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc.aio
import pytest

from tests.support.linearizability import Workload
from tests.support.permits import GuardedWorkload
from tests.support.running import Server
from tests.support.servers import Binaries


@asynccontextmanager
async def working(workload: Workload) -> AsyncIterator[None]:
    """Keep the clients busy, and compact the history under them."""
    stop, compacted = asyncio.Event(), asyncio.Event()

    async def compact() -> None:
        while True:
            await workload.history.until_completed(150)
            # The server may be away just now, and nothing depends on this one.
            with suppress(grpc.aio.AioRpcError):
                async with workload.connect(workload.target(), 0) as client:
                    await client.compact(await client.revision() - 5)
                    compacted.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(workload.run(stop))
        compaction = group.create_task(compact())
        await workload.history.until_completed(100)
        yield
        await workload.history.until_completed(200)
        await compacted.wait()
        compaction.cancel()
        stop.set()


async def work_over_crashes(workload: Workload, server: Server, times: int) -> None:
    """Kill and start the server so many times while the clients are busy."""
    async with working(workload):
        for _ in range(times):
            await workload.history.until_completed(300)
            await workload.history.restart(server)


async def test_concurrent_clients(server: Server, binaries: Binaries, tmp_path: Path) -> None:
    workload = Workload(server.target)
    async with working(workload):
        await workload.history.until_completed(1000)
    workload.history.check(binaries.porcupine_check, tmp_path)


async def test_kill_and_restart(server: Server, binaries: Binaries, tmp_path: Path) -> None:
    workload = Workload(server.target)
    async with working(workload):
        for _ in range(3):
            await workload.history.restart(server)
            await workload.history.until_completed(100)
    workload.history.check(binaries.porcupine_check, tmp_path)


async def test_pause_and_continue(server: Server, binaries: Binaries, tmp_path: Path) -> None:
    workload = Workload(server.target)
    async with working(workload):
        server.signal(signal.SIGSTOP)
        await workload.history.until_stuck(workload.clients)
        server.signal(signal.SIGCONT)
    workload.history.check(binaries.porcupine_check, tmp_path)


async def test_pause_kill_and_restart(server: Server, binaries: Binaries, tmp_path: Path) -> None:
    workload = Workload(server.target)
    async with working(workload):
        server.signal(signal.SIGSTOP)
        await workload.history.until_stuck(workload.clients)
        await workload.history.restart(server)
    workload.history.check(binaries.porcupine_check, tmp_path)


async def test_auth_changes(server: Server, binaries: Binaries, tmp_path: Path) -> None:
    workload = GuardedWorkload(server.target)
    await workload.enable()
    async with working(workload):
        await workload.history.until_completed(1500)
        server.signal(signal.SIGSTOP)
        await workload.history.until_stuck(workload.clients)
        server.signal(signal.SIGCONT)
        await workload.history.restart(server)
    workload.check(binaries.porcupine_check, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
async def test_auth_changes_over_many_crashes(
    seed: int, server: Server, binaries: Binaries, tmp_path: Path
) -> None:
    workload = GuardedWorkload(server.target, clients=12, keys=12, seed=seed)
    await workload.enable()
    await work_over_crashes(workload, server, 10)
    workload.check(binaries.porcupine_check, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
async def test_many_crashes(seed: int, server: Server, binaries: Binaries, tmp_path: Path) -> None:
    workload = Workload(server.target, clients=12, keys=12, seed=seed)
    await work_over_crashes(workload, server, 10)
    workload.history.check(binaries.porcupine_check, tmp_path)
