"""How long to wait before a process that ended is started again: a pure function."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """The numbers behind the wait.

    The wait doubles with every run shorter than `stable_seconds` and is spread by `jitter`, so
    that processes which fell together do not rise together.
    """

    first_seconds: float = 0.5
    factor: float = 2.0
    longest_seconds: float = 60.0
    jitter: float = 0.2
    stable_seconds: float = 60.0
    crash_loop_runs: int = 5


@dataclass(frozen=True, slots=True)
class Streak:
    """Runs that ended too early, one after the other."""

    runs: int = 0


@dataclass(frozen=True, slots=True)
class Delay:
    """What follows from one more exit."""

    seconds: float
    streak: Streak
    is_crash_loop: bool


def next_delay(
    policy: BackoffPolicy, streak: Streak, ran_seconds: float, fraction: float
) -> Delay:
    """Return the wait after a run of `ran_seconds`.

    Args:
        policy: The numbers.
        streak: The short runs before this one.
        ran_seconds: How long the process ran; a stable run starts a new streak.
        fraction: A random number in [0, 1) that chooses the jitter.
    """
    runs = 1 if ran_seconds >= policy.stable_seconds else streak.runs + 1
    # The exponent is capped: 2.0 ** 1100 raises OverflowError after a few days of crashing.
    exponential = policy.first_seconds * policy.factor ** min(runs - 1, 64)
    spread = 1 + policy.jitter * (2 * fraction - 1)
    seconds = min(exponential, policy.longest_seconds) * spread
    return Delay(seconds, Streak(runs), runs >= policy.crash_loop_runs)
