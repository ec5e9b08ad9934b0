"""SQL that is slow is told of, as kine does."""

from __future__ import annotations

import logging

import pytest

from datastore.shim.timing import SlowSql, tell_slow


@pytest.mark.parametrize(
    ("slow", "seconds", "level"),
    [
        (SlowSql(1.0, 5.0), 0.9, None),
        (SlowSql(1.0, 5.0), 1.1, logging.INFO),
        (SlowSql(1.0, 5.0), 5.1, logging.WARNING),
        (SlowSql(0.0, 5.0), 1.1, None),
        (SlowSql(0.0, 0.0), 9.9, None),
        (SlowSql(1.0, 0.0), 9.9, logging.INFO),
    ],
)
def test_what_is_slow_is_told_of(
    slow: SlowSql, seconds: float, level: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    observed: list[tuple[str, float]] = []
    tell_slow(lambda *call: observed.append(call), slow)("append", seconds)
    assert observed == [("append", seconds)]
    assert [record.levelno for record in caplog.records] == ([level] if level else [])
