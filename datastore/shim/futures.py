"""Awaiting what is answered by a callback."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


def complete(future: asyncio.Future[T], outcome: T | None, error: Exception | None) -> None:
    """Give a future its outcome or its error; it may have been cancelled in this very turn."""
    if future.done():
        return
    if outcome is not None:
        future.set_result(outcome)
    elif error is not None:
        future.set_exception(error)
