"""How much of what costs us more than the peer is tolerated."""

from __future__ import annotations

from typing import Final

from datastore.shim.transport.http2.frames import ENHANCE_YOUR_CALM, ConnectionFault

WINDOW_SECONDS: Final = 10.0


class Budget:
    """So many events in ten seconds; the next one ends the connection."""

    __slots__ = ("_begun", "_limit", "_spent", "_what")

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._spent = 0
        self._begun = 0.0

    def spend(self, now: float) -> None:
        """Count one event.

        Raises:
            ConnectionFault: it was one too many.
        """
        if now - self._begun >= WINDOW_SECONDS:
            self._begun = now
            self._spent = 0
        self._spent += 1
        if self._spent > self._limit:
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"too many {self._what}")

    def forgive(self) -> None:
        """Forget what was counted: the peer does something useful."""
        self._spent = 0
