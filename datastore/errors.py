"""Everything that can be wrong with a datastore before or beside its use.

    DatastoreError
    ├── ConfigError           the configuration file, all problems at once
    ├── UnusableDsn           a data source that cannot be understood or used
    ├── UnusablePath          a file, directory or socket path that cannot be used
    ├── UnusableUser          a user that the datastore cannot run as
    ├── CertificateError      a certificate or key that is missing, broken or does not fit
    ├── UnknownKind           no datastore is registered for a URL scheme
    ├── PasswordUnavailable   a source of passwords that gives none
    └── NotReady              the store does not answer; says what to do

What the shim refuses over the wire is in `shim/errors.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class DatastoreError(Exception):
    """Base of all; the message is for people."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration; `value` is redacted, `path` is dotted."""

    path: str
    value: str
    expected: str
    nearest: str = ""

    def __str__(self) -> str:
        found = f" (found {self.value})" if self.value else ""
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.expected}{found}{hint}"


class ConfigError(DatastoreError):
    """A configuration that cannot be used: every problem, one a line."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = "one problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"{source}: {count} in the configuration{lines}")


class UnusableDsn(DatastoreError):
    """A data source name that cannot be used; the reason never holds the password."""


class PasswordUnavailable(DatastoreError):
    """A file or a command that should give a password and does not, and why."""


class UnusablePath(DatastoreError):
    """A path that cannot be used, and why."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"cannot use {path}: {reason}")


class UnusableUser(DatastoreError):
    """A user that the datastore cannot run as, and why."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"the datastore cannot run as {name}: {reason}")


class CertificateError(DatastoreError):
    """A certificate or key file that cannot be used, and why."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class UnknownKind(DatastoreError):
    """No datastore is registered for this URL scheme."""

    def __init__(self, scheme: str, known: Sequence[str]) -> None:
        self.scheme = scheme
        self.known = tuple(known)
        super().__init__(
            f"no datastore for data sources that begin with {scheme}://; known: {', '.join(known)}"
        )


class NotReady(DatastoreError):
    """A store or process that does not answer as it should, now."""

    def __init__(self, reason: str, advice: str = "") -> None:
        self.reason = reason
        self.advice = advice
        super().__init__(f"{reason}; {advice}" if advice else reason)
