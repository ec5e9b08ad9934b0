"""The states of a child, the table of what may follow, and what a child needs from outside."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol

from datastore.launch import ProcessSpec


class State(StrEnum):
    """Where a child stands."""

    INITIAL = "initial"
    STARTING = "starting"
    READY = "ready"
    TERMINATING = "terminating"
    KILLING = "killing"
    BACKOFF = "backoff"
    STOPPED = "stopped"
    FAILED = "failed"


class Event(StrEnum):
    """What can happen to a child."""

    START = "start"
    READY = "ready"
    READY_ELAPSED = "ready_elapsed"
    UNHEALTHY = "unhealthy"
    EXITED = "exited"
    STOP = "stop"
    GRACE_ELAPSED = "grace_elapsed"
    BACKOFF_ELAPSED = "backoff_elapsed"


_END = (State.BACKOFF, State.FAILED)
_SPAWN = (State.STARTING, *_END)

TABLE: Mapping[State, Mapping[Event, tuple[State, ...]]] = {
    State.INITIAL: {Event.START: _SPAWN, Event.STOP: (State.STOPPED,)},
    State.STARTING: {
        Event.READY: (State.READY,),
        Event.READY_ELAPSED: (State.TERMINATING,),
        Event.EXITED: _END,
        Event.STOP: (State.TERMINATING,),
    },
    State.READY: {
        Event.UNHEALTHY: (State.TERMINATING,),
        Event.EXITED: _END,
        Event.STOP: (State.TERMINATING,),
    },
    State.TERMINATING: {
        Event.EXITED: (State.STOPPED, *_END),
        Event.STOP: (State.TERMINATING,),
        Event.GRACE_ELAPSED: (State.KILLING,),
    },
    State.KILLING: {
        Event.EXITED: (State.STOPPED, *_END),
        Event.STOP: (State.KILLING,),
    },
    State.BACKOFF: {Event.BACKOFF_ELAPSED: _SPAWN, Event.STOP: (State.STOPPED,)},
    State.STOPPED: {Event.START: _SPAWN, Event.STOP: (State.STOPPED,)},
    State.FAILED: {Event.START: _SPAWN, Event.STOP: (State.STOPPED,)},
}


class Exit(NamedTuple):
    """How a run ended; `status` is None when the system refused to start it."""

    status: int | None
    reason: str
    ran_seconds: float
    lines: tuple[str, ...]


class Handle(Protocol):
    """A running process."""

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the process and everything in its group."""


class Spawner(Protocol):
    """Starts a process; raises OSError when the system refuses."""

    def __call__(
        self,
        spec: ProcessSpec,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[int], None],
    ) -> Handle:
        """Start `spec`; `on_exit` is called once, later, with the wait status."""


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Forget the call."""


class Clock(Protocol):
    """Time and timers; an asyncio loop is one."""

    def time(self) -> float:
        """Return monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer:
        """Call `callback` after `delay` seconds."""


def describe_status(status: int) -> str:
    """Return a wait status in words: ``exit status 3`` or ``killed by SIGSEGV``."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
