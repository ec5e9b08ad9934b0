"""Logs of components."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.output import LONGEST_LINE, ComponentLog, Level, parse_level, read_tail


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (b"I1124 05:41:38.123456   12 server.go:1] serving", Level.INFO),
        (b"E1124 05:41:38.123456   12 options.go:205] The manifest file is empty", Level.ERROR),
        (b"F1124 05:41:38.123456   12 x.go:1] dead", Level.CRITICAL),
        (b'{"level":"warn","ts":"2026","msg":"slow fdatasync"}', Level.WARNING),
        (b'{"level":"dpanic","msg":"x"}', Level.CRITICAL),
        (b'time="2026-11-24T05:41:38Z" level=info msg="Kine available"', Level.INFO),
        (b"2026-11-24 05:41:38,123 WARNING datastore.shim: database away", Level.WARNING),
        (b"ERROR: cannot open", Level.ERROR),
        (b"Traceback (most recent call last):", None),
        (b"", None),
        (b"{broken", None),
        (b'{"level":3}', None),
        (b"[1]", None),
    ],
)
def test_the_level_of_a_line(line: bytes, level: Level | None) -> None:
    assert parse_level(line) == level


def test_lines_are_whole_whatever_the_chunks(tmp_path: Path) -> None:
    with ComponentLog(tmp_path / "a.log") as log:
        for chunk in (b"on", b"e\ntw", b"o\n", b"three"):
            log.feed(chunk)
        assert log.last_lines() == ("one", "two", "three")
    assert (tmp_path / "a.log").read_bytes() == b"one\ntwo\nthree\n"


def test_a_full_log_is_rotated_and_the_oldest_is_dropped(tmp_path: Path) -> None:
    with ComponentLog(tmp_path / "a.log", max_bytes=100, keep=2) as log:
        for number in range(100):
            log.feed(b"line %02d\n" % number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1", "a.log.2"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    assert list(read_tail(tmp_path / "a.log", 20)) == [b"line %02d" % n for n in range(80, 100)]


def test_a_flood_without_newlines_is_cut(tmp_path: Path) -> None:
    with ComponentLog(tmp_path / "a.log") as log:
        for _ in range(10):
            log.feed(b"x" * LONGEST_LINE)
        assert all(len(line) <= LONGEST_LINE for line in log.last_lines())
    assert (tmp_path / "a.log").stat().st_size >= 10 * LONGEST_LINE


def test_a_log_that_cannot_be_written_costs_lines_only(tmp_path: Path) -> None:
    (tmp_path / "a.log").mkdir()
    with ComponentLog(tmp_path / "a.log") as log:
        log.feed(b"one\n")
        assert log.lost_bytes == 4
        assert log.last_lines() == ("one",)


def test_the_log_is_private(tmp_path: Path) -> None:
    with ComponentLog(tmp_path / "a.log") as log:
        log.feed(b"one\n")
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_does_not_exist_has_no_lines(tmp_path: Path) -> None:
    assert list(read_tail(tmp_path / "none.log", 5)) == []
