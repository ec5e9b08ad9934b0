"""Everything that can stop byre, with the exit code that each one has.

    SupervisorError           1
    ├── PreflightFailed       4   the machine is not fit: every problem at once
    ├── StartFailed           6   a process did not become ready; its last lines
    ├── NotRunning            7   no byre answers for this data directory
    └── ForeignStore          8   the datastore is not the one this data directory belongs to

Configuration errors (`datastore.errors`) exit with 3, missing binaries with 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class SupervisorError(Exception):
    """Base of all; the message is for people."""

    exit_code: ClassVar[int] = 1


class PreflightFailed(SupervisorError):
    """What has to be put right before anything is started, or `aim` is done."""

    exit_code = 4

    def __init__(self, problems: Sequence[str], aim: str = "start") -> None:
        self.problems = tuple(problems)
        listed = "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"cannot {aim}, nothing has been changed:{listed}")


class StartFailed(SupervisorError):
    """A component that did not become ready, and what it said last."""

    exit_code = 6

    def __init__(
        self, component: str, reason: str, lines: Sequence[str] = (), log: Path | None = None
    ) -> None:
        self.component = component
        self.reason = reason
        self.lines = tuple(lines)
        said = "".join(f"\n  | {line}" for line in self.lines)
        more = f"\n  whole log: {log}" if log else ""
        super().__init__(f"{component} did not start: {reason}{said}{more}")


class NotRunning(SupervisorError):
    """No byre answers."""

    exit_code = 7


class ForeignStore(SupervisorError):
    """A datastore other than the one that is remembered."""

    exit_code = 8
