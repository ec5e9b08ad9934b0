"""Whether the store can serve, and why not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum


class State(StrEnum):
    """What can be said of the store."""

    STARTING = "starting"
    SERVING = "serving"
    AWAY = "away"  # the database cannot be reached; heals by itself
    FAILED = "failed"  # damaged, or another history: final, the process must end


class Health:
    """The state of the store, told to whoever asked to know."""

    def __init__(self) -> None:
        self.state = State.STARTING
        self.serving = False
        """Whether requests can be answered now. Hot: read with each."""
        self.reason = "the store is being opened"
        self._callbacks: list[Callable[[], None]] = []
        self._failed = asyncio.Event()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back after each change of state."""
        self._callbacks.append(callback)

    def serve(self) -> None:
        """Note that the store answers."""
        self._turn(State.SERVING, "")

    def away(self, reason: str) -> None:
        """Note that the database cannot be reached."""
        self._turn(State.AWAY, reason)

    def fail(self, reason: str) -> None:
        """Note that the store must not be served any more."""
        self._turn(State.FAILED, reason)
        self._failed.set()

    async def failure(self) -> str:
        """Wait until the store has failed for good and return why."""
        await self._failed.wait()
        return self.reason

    def _turn(self, state: State, reason: str) -> None:
        if self.state is State.FAILED or (self.state is state and self.reason == reason):
            return
        self.state, self.reason = state, reason
        self.serving = state is State.SERVING
        for callback in self._callbacks:
            callback()
