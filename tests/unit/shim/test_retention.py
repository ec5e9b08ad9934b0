"""What automatic compaction keeps, and the texts that say so: etcd's meaning of its flags."""

from __future__ import annotations

import pytest

from datastore.shim.options import BadOptions, parse
from datastore.shim.retention import HOUR, NUMBER_SECONDS, Retention, Window

MINUTE = 60.0


def parsed(retention: str | None = None, mode: str | None = None) -> Retention | None:
    texts = {
        "datastore": "memory://",
        "listen-client-urls": "unix:///s",
        "auto-compaction-retention": retention,
        "auto-compaction-mode": mode,
    }
    return parse(texts, {}).auto_compaction


def compactions(retention: Retention, steps: int, each: int = 1) -> list[tuple[int, int]]:
    """Return (step, revision) of what is due while every step brings `each` revisions."""
    window, found = Window(retention, 0.0), []
    for step in range(1, steps + 1):
        window.look(1 + (step - 1) * each)
        if target := window.due(1 + step * each, step * retention.step):
            found.append((step, target))
            window.done(target, step * retention.step)
    return found


@pytest.mark.parametrize("retention", [None, "", "0", "0s", "0h"])
@pytest.mark.parametrize("mode", [None, "periodic"])
def test_nothing_is_compacted_unless_it_is_asked_for(
    retention: str | None, mode: str | None
) -> None:
    assert parsed(retention, mode) is None
    assert parsed("0", "revision") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", HOUR), ("24", 24 * HOUR), ("30m", 30 * MINUTE), ("1.5h", 1.5 * HOUR)],
)
def test_a_plain_number_is_hours_and_anything_else_a_duration(text: str, seconds: float) -> None:
    assert parsed(text) == parsed(text, "periodic") == Retention.by_age(seconds)


def test_a_number_of_revisions() -> None:
    assert parsed("1000", "revision") == Retention.by_number(1000)


@pytest.mark.parametrize(
    ("retention", "mode", "problem"),
    [
        ("1h", "yearly", "--auto-compaction-mode: 'yearly' is not one of periodic, revision"),
        ("soon", None, "--auto-compaction-retention: 'soon' is not a duration, such as 200ms"),
        ("-1", None, "--auto-compaction-retention: '-1' is not a duration"),
        ("10ms", None, "--auto-compaction-retention: 10ms is too short; keep 1s at least"),
        ("1h", "revision", "--auto-compaction-retention: '1h' is not a whole number"),
        ("-5", "revision", "--auto-compaction-retention: '-5' is not a whole number"),
    ],
)
def test_texts_that_mean_nothing(retention: str, mode: str | None, problem: str) -> None:
    with pytest.raises(BadOptions) as caught:
        parsed(retention, mode)
    assert any(found.startswith(problem) for found in caught.value.problems)


@pytest.mark.parametrize(
    ("kept", "step", "pause"),
    [
        (5.0, 0.5, 5.0),
        (59 * MINUTE, 354.0, 59 * MINUTE),
        (HOUR, 360.0, HOUR),
        (24 * HOUR, 360.0, HOUR),
    ],
)
def test_steps_are_a_tenth_of_what_is_kept_or_of_an_hour(
    kept: float, step: float, pause: float
) -> None:
    """As etcd's periodic compactor."""
    made = Retention.by_age(kept)
    assert (made.step, made.first, made.pause) == (step, kept, pause)
    assert made.looks == kept / step + 1


def test_by_age_waits_its_time_and_then_compacts_at_most_every_hour() -> None:
    assert compactions(Retention.by_age(5 * MINUTE), 30) == [(10, 1), (20, 10), (30, 20)]
    assert compactions(Retention.by_age(HOUR), 30) == [(10, 1), (20, 10), (30, 20)]
    assert compactions(Retention.by_age(2 * HOUR), 40) == [(20, 1), (30, 10), (40, 20)]


def test_by_number_keeps_the_newest() -> None:
    assert compactions(Retention.by_number(10), 13) == [(10, 1), (11, 2), (12, 3), (13, 4)]
    assert Retention.by_number(10).step == NUMBER_SECONDS == 5 * MINUTE


def test_by_both_keeps_a_step_of_history_and_the_newest() -> None:
    """As kine: the revision a step ago, but never the newest so many."""
    kept = Retention.by_both(300.0, 1000)
    assert compactions(kept, 4, each=800) == [(2, 601), (3, 1401), (4, 2201)]
    assert compactions(kept, 4, each=5000) == [(1, 1), (2, 5001), (3, 10001), (4, 15001)]


def test_what_was_compacted_is_not_compacted_again() -> None:
    window = Window(Retention.by_number(10), 0.0)
    assert window.due(20, 300.0) == 10
    window.done(10, 300.0)
    assert window.due(20, 600.0) == 0


def test_what_failed_is_tried_again_at_the_next_step() -> None:
    kept = Retention.by_age(HOUR)
    window = Window(kept, 0.0)
    for step in range(12):
        window.look(100 + step)
    assert window.due(112, HOUR + kept.step) == 101
    assert window.due(112, HOUR + 2 * kept.step) == 101
