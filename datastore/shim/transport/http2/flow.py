"""The sending half of one stream: its window, and what waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from datastore.shim.transport.api import Pieces

STREAM_HIGH: Final = 64 << 10
"""Bytes waiting on one stream above which a sender is to wait."""

Piece = bytes | memoryview
"""What is written next."""
Chunk = Piece | Pieces
"""What waits for that."""


class Flow:
    """The sending half of one stream, once it is more than one answer that goes at once.

    Attributes:
        pending: Bytes of messages that wait, their prefixes included.
        moved: Whether something was sent since the last sweep; `stalled` counts sweeps without.
    """

    __slots__ = (
        "chunks",
        "moved",
        "pending",
        "queued",
        "stalled",
        "stream_id",
        "tail",
        "waiters",
        "window",
    )  # fmt: skip

    def __init__(self, stream_id: int, window: int) -> None:
        self.stream_id = stream_id
        self.window = window
        self.chunks: deque[Chunk] = deque()
        self.pending = 0
        self.queued = False
        self.tail: bytes | None = None
        self.moved = True
        self.stalled = 0
        self.waiters: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Let those go on who wait for the stream to drain."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Ledger:
    """Bytes of all connections: answers and requests that wait, what was sent and received."""

    __slots__ = ("held", "pending", "received", "sent")

    def __init__(self) -> None:
        self.pending = 0
        self.held = 0
        self.received = 0
        self.sent = 0
