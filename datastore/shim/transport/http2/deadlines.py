"""Deadlines of many calls behind one timer: a call costs two set operations."""

from __future__ import annotations

import asyncio
import heapq
from typing import Final, Protocol

_TICKS_PER_SECOND: Final = 64.0
"""A deadline is enforced up to 1/64 s late; the client keeps its own clock anyway."""
_HORIZON_SECONDS: Final = 64.0
"""What is further away is looked at again then, so that far deadlines do not fill memory."""


class Expiring(Protocol):
    """What has a deadline."""

    slot: int
    deadline_at: float

    def expire(self) -> None:
        """Take note that the deadline has passed."""


class Deadlines:
    """Calls by the tick at which they expire."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Expiring]] = {}
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Expiring, now: float) -> None:
        """Watch a call, which keeps its slot. Hot."""
        slot = int(min(call.deadline_at, now + _HORIZON_SECONDS) * _TICKS_PER_SECOND) + 1
        call.slot = slot
        calls = self._slots.get(slot)
        if calls is None:
            calls = self._slots[slot] = set()
            heapq.heappush(self._order, slot)
            if self._order[0] == slot:
                self._arm(slot)
        calls.add(call)

    def remove(self, call: Expiring) -> None:
        """Forget a call. Hot."""
        calls = self._slots.get(call.slot)
        if calls is not None:
            calls.discard(call)

    def close(self) -> None:
        """Expire nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._slots.clear()
        self._order.clear()

    def _arm(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(slot / _TICKS_PER_SECOND, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._order and self._order[0] <= now * _TICKS_PER_SECOND:
            for call in self._slots.pop(heapq.heappop(self._order)):
                if call.deadline_at > now:
                    self.add(call, now)
                else:
                    call.expire()
        if self._order:
            self._arm(self._order[0])
