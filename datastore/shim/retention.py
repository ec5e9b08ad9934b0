"""What automatic compaction keeps: by age or by number as etcd does, or by both as kine does.

etcd: server/etcdserver/api/v3compactor. It looks in steps, and remembers what the revision was at
each, so that age is known without a clock in the log.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Self

if TYPE_CHECKING:
    from datastore.shim.options import Parser

MODES: Final = ("periodic", "revision")
HOUR: Final = 3600.0
NUMBER_SECONDS: Final = 300.0
"""Between two compactions by number."""
LOOKS: Final = 10
"""Looks in the time that is kept, or in an hour where that is shorter."""
SHORTEST: Final = 1.0
"""Seconds that can be kept: less would compact under the hands of every client."""


class Retention(NamedTuple):
    """What is kept and when that is looked at.

    Attributes:
        step: Seconds between two looks.
        looks: How many of them are remembered: the revision at the oldest may be compacted.
            None is enough where age does not count.
        newest: Revisions that are kept whatever their age.
        first: Seconds until the first compaction.
        pause: Seconds between later ones, at least.
    """

    step: float
    looks: int = 0
    newest: int = 0
    first: float = 0.0
    pause: float = 0.0

    @classmethod
    def by_age(cls, seconds: float) -> Self:
        """Keep what is not older than `seconds`."""
        pause = min(seconds, HOUR)
        step = pause / LOOKS
        return cls(step, looks=round(seconds / step) + 1, first=seconds, pause=pause)

    @classmethod
    def by_number(cls, revisions: int) -> Self:
        """Keep the newest `revisions`."""
        return cls(NUMBER_SECONDS, newest=revisions)

    @classmethod
    def by_both(cls, seconds: float, revisions: int) -> Self:
        """Keep what is not older than `seconds` and the newest `revisions`, as kine does."""
        return cls(seconds, looks=1, newest=revisions)


class Window:
    """The revisions at the last looks, and what may go."""

    def __init__(self, retention: Retention, now: float) -> None:
        self._retention = retention
        self._seen: deque[int] = deque(maxlen=max(1, retention.looks))
        self._pause = retention.first
        self._since = now
        self._last = 0

    def look(self, revision: int) -> None:
        """Remember the revision of this moment."""
        self._seen.append(revision)

    def due(self, revision: int, now: float) -> int:
        """Return the revision to compact at, a step after the last look; 0 where there is none."""
        kept = self._retention
        oldest = self._seen[0] if kept.looks else revision
        target = min(oldest, revision - kept.newest)
        if target <= 0 or target == self._last or now - self._since < self._pause:
            return 0
        self._pause = kept.pause
        return target

    def done(self, target: int, now: float) -> None:
        """Note that the log is compacted at `target`."""
        self._last, self._since = target, now


def parse_retention(parser: Parser) -> Retention | None:
    """Return what ``--auto-compaction-mode`` and ``-retention`` say; None is no compaction."""
    mode = parser.choice("auto-compaction-mode", MODES[0], MODES)
    name = "auto-compaction-retention"
    text = parser.text(name) or "0"
    if mode == "revision":
        number = parser.number(name, 0, 0)
        return Retention.by_number(number) if number else None
    if text.isascii() and text.isdigit():
        seconds = int(text) * HOUR
    else:
        seconds = parser.duration(name, "0")
        if 0 < seconds < SHORTEST:
            parser.problems.append(f"--{name}: {text} is too short; keep {SHORTEST:g}s at least")
    return Retention.by_age(seconds) if seconds else None
