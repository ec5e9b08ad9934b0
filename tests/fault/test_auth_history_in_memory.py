"""Servers of one log in memory: clients of all of them see one history while auth changes."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from datastore.shim.auth_options import AuthSettings
from datastore.shim.backends.api import Batch
from datastore.shim.backends.memory import Fault, Faults, Log
from tests.support.in_process import serving
from tests.support.permits import GuardedWorkload
from tests.support.servers import Binaries

RATE = 0.05
"""How much of what servers ask the log fails."""


class Losses(Faults):
    """Commits get lost, or only their answers do; looks at the log fail."""

    APPENDS = (Fault.UNAVAILABLE, Fault.LOST_APPLIED, Fault.LOST_NOT_APPLIED, Fault.OVERTAKEN)

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def append(self, batch: Batch) -> Fault | None:
        return self.dice.choice(self.APPENDS) if self.dice.random() < RATE else None

    def read(self, operation: str) -> Fault | None:
        failing = operation == "tail" and self.dice.random() < RATE
        return Fault.UNAVAILABLE if failing else None

    def hint(self) -> bool:
        return self.dice.random() < 0.5


async def make_history(
    servers: int, seed: int, operations: int, checker: Path, directory: Path
) -> None:
    """Let clients work on so many servers, and judge what they were told."""
    log = Log()
    names = [f"server-{number}" for number in range(servers)]
    async with AsyncExitStack() as stack:
        for name in names:
            faults = Losses(seed) if servers > 1 else None
            await stack.enter_async_context(
                serving(directory, faults, log, name=name, auth=AuthSettings(bcrypt_cost=4))
            )
        targets = [f"unix:{directory / name}.sock" for name in names]
        workload = GuardedWorkload(targets, clients=9, seed=seed)
        await workload.enable()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(workload.run(stop))
            await workload.history.until_completed(operations)
            stop.set()
    await asyncio.to_thread(workload.check, checker, directory)


@pytest.mark.parametrize("servers", [1, 3])
async def test_one_history_while_auth_changes(
    servers: int, binaries: Binaries, tmp_path: Path
) -> None:
    await make_history(servers, 0, 1200, binaries.porcupine_check, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("seed", range(10))
async def test_one_long_history_while_auth_changes(
    servers: int, seed: int, binaries: Binaries, tmp_path: Path
) -> None:
    await make_history(servers, seed, 10_000, binaries.porcupine_check, tmp_path)
