"""Threads for calls to a backend: the one module of the shim that has any.

Several lanes, because a long list must not delay a commit, nor a long clean-up a keepalive:
appends; head and tail reads; reads of rows; leases and members; pruning, sizes and pages of
snapshots; defragmentation. Each runs one call at a time, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Lane(Protocol):
    """Runs blocking calls elsewhere, one at a time, in order."""

    async def __call__(self, call: Callable[[*Ts], T], /, *args: *Ts) -> T:
        """Run the call and return what it returned.

        Cancelling the caller does not stop a call that has begun.
        """

    def close(self) -> None:
        """Wait for the call under way and stop."""


class ThreadLane:
    """A lane with a thread of its own."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def __call__(self, call: Callable[[*Ts], T], /, *args: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Lanes(NamedTuple):
    """Where each kind of call goes."""

    append: Lane
    head: Lane
    read: Lane
    upkeep: Lane
    chores: Lane
    rebuild: Lane

    def close(self) -> None:
        """Stop all lanes."""
        for lane in self:
            lane.close()


def thread_lane(name: str) -> Lane:
    """Return a lane for what is no call to a backend."""
    return ThreadLane(f"byre-{name}")


def thread_lanes() -> Lanes:
    """Return all lanes, each with a thread of its own."""
    return Lanes(*map(thread_lane, Lanes._fields))
