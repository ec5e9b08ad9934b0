"""The wait before a restart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.backoff import BackoffPolicy, Streak, next_delay

POLICY = BackoffPolicy(first_seconds=1, factor=2, longest_seconds=30, jitter=0)


@pytest.mark.parametrize(
    ("runs", "seconds"), [(0, 1), (1, 2), (2, 4), (4, 16), (5, 30), (10_000, 30)]
)
def test_the_wait_doubles_up_to_the_longest(runs: int, seconds: float) -> None:
    assert next_delay(POLICY, Streak(runs), 0, 0.3).seconds == seconds


def test_a_stable_run_starts_again_from_the_first_wait() -> None:
    delay = next_delay(POLICY, Streak(9), POLICY.stable_seconds, 0.3)
    assert (delay.seconds, delay.streak, delay.is_crash_loop) == (1, Streak(1), False)


def test_the_fifth_short_run_is_a_crash_loop() -> None:
    streak, loops = Streak(), []
    for _ in range(6):
        delay = next_delay(POLICY, streak, 1, 0.5)
        streak = delay.streak
        loops.append(delay.is_crash_loop)
    assert loops == [False] * 4 + [True] * 2


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_share(runs: int, fraction: float) -> None:
    policy = BackoffPolicy(jitter=0.2)
    plain = next_delay(BackoffPolicy(jitter=0), Streak(runs), 0, fraction).seconds
    assert 0.8 * plain <= next_delay(policy, Streak(runs), 0, fraction).seconds <= 1.2 * plain
