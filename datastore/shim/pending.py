"""Writes that wait for their answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from datastore.shim.errors import ShimError, TimedOut
from datastore.shim.mvcc.auth import Caller
from datastore.shim.mvcc.ops import Result, Write

Taker = Callable[["Result | None", "ShimError | None"], None]
"""Whom a write's answer is given to: a result, or why there is none."""


class Pending:
    """A write that waits for its answer, which it is given once. Hot: plain slots."""

    __slots__ = ("_taker", "caller", "deadline", "done", "error", "result", "size", "write")

    def __init__(
        self, write: Write, caller: Caller, size: int, deadline: float | None, taker: Taker
    ) -> None:
        self.write = write
        self.caller = caller
        self.size = size
        self.deadline = deadline
        self.done = False
        """Whether it has its answer, or nobody wants one any more."""
        self.result: Result | None = None
        self.error: ShimError | None = None
        self._taker = taker

    def answer(self) -> None:
        """Hand out what evaluation found, once it is durable. Hot."""
        if not self.done:
            self.done = True
            # Not kept: a raised error holds the frames that hold this.
            error, self.error = self.error, None
            self._taker(None if error is not None else self.result, error)

    def fail(self, error: ShimError) -> None:
        """Answer with an error."""
        if not self.done:
            self.done = True
            self._taker(None, error)

    def abandon(self) -> None:
        """Note that nobody waits: what is not yet evaluated never will be."""
        self.done = True


def fail(waiting: Iterable[Pending], error: ShimError) -> None:
    """Answer all that have no answer yet with an error."""
    for pending in waiting:
        pending.fail(error)


def expire(waiting: Iterable[Pending]) -> None:
    """Answer those whose deadline has passed: the outcome is unknown to them."""
    now = asyncio.get_running_loop().time()
    for pending in waiting:
        if pending.deadline is not None and pending.deadline <= now:
            pending.fail(TimedOut())
