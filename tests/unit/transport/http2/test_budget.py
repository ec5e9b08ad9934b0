"""Budgets against floods."""

from __future__ import annotations

import pytest

from datastore.shim.transport.http2.budget import WINDOW_SECONDS, Budget
from datastore.shim.transport.http2.frames import ENHANCE_YOUR_CALM, ConnectionFault


def test_one_too_many_ends_the_connection() -> None:
    budget = Budget(3, "pings")
    for _ in range(3):
        budget.spend(1.0)
    with pytest.raises(ConnectionFault, match="too many pings") as caught:
        budget.spend(2.0)
    assert caught.value.code == ENHANCE_YOUR_CALM


def test_the_same_over_a_longer_time_does_not() -> None:
    budget = Budget(3, "pings")
    for number in range(100):
        budget.spend(number * WINDOW_SECONDS / 3)


def test_what_is_forgiven_does_not_count() -> None:
    budget = Budget(3, "pings")
    for _ in range(100):
        budget.spend(1.0)
        budget.forgive()
