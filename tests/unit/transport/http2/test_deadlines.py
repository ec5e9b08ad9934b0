"""Deadlines of many calls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from datastore.shim.transport.http2.deadlines import Deadlines


class Clock:
    """A loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def call_at(self, when: float, callback: Any) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, (), cast("Any", self))
        self.timers.append(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers.remove(handle)

    def advance(self, seconds: float) -> None:
        """Move on, step by step, as a loop that wakes up in time."""
        end = self.now + seconds
        while self.timers and (timer := min(self.timers)).when() <= end:
            self.timers.remove(timer)
            self.now = max(self.now, timer.when())
            timer._run()
        self.now = end


@dataclass(eq=False)
class Waiting:
    """Something with a deadline."""

    clock: Clock
    deadline_at: float
    slot: int = -1
    expired: list[float] = field(default_factory=list)

    def expire(self) -> None:
        self.expired.append(self.clock.now)


def make() -> tuple[Clock, Deadlines]:
    clock = Clock()
    return clock, Deadlines(cast("asyncio.AbstractEventLoop", clock))


def test_each_expires_once_and_not_early() -> None:
    clock, deadlines = make()
    calls = [Waiting(clock, 100.0 + delay) for delay in (0.0, 0.5, 0.001, 3.0, 0.5)]
    for call in calls:
        deadlines.add(call, clock.now)
    clock.advance(10)
    for call in calls:
        assert len(call.expired) == 1
        assert call.deadline_at <= call.expired[0] <= call.deadline_at + 0.05


def test_who_is_removed_does_not_expire() -> None:
    clock, deadlines = make()
    call, other = Waiting(clock, 101.0), Waiting(clock, 101.0)
    deadlines.add(call, clock.now)
    deadlines.add(other, clock.now)
    deadlines.remove(call)
    clock.advance(5)
    assert (call.expired, len(other.expired)) == ([], 1)


def test_far_deadlines_are_kept_and_take_up_no_slots_of_their_own() -> None:
    clock, deadlines = make()
    calls = [Waiting(clock, 1000.0 + number) for number in range(100)]
    for call in calls:
        deadlines.add(call, clock.now)
    assert len(deadlines._slots) == 1
    clock.advance(890)
    assert not any(call.expired for call in calls)
    clock.advance(200)
    assert all(len(call.expired) == 1 for call in calls)


def test_nothing_expires_after_the_end() -> None:
    clock, deadlines = make()
    call = Waiting(clock, 101.0)
    deadlines.add(call, clock.now)
    deadlines.close()
    clock.advance(5)
    assert call.expired == []
    assert clock.timers == []
