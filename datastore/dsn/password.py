"""Where a database's password comes from: it is asked for each new connection, and never shown.

A password that rotates, or one that a cloud makes for a few minutes, is right only when it is
fetched as late as that.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from datastore.errors import PasswordUnavailable

COMMAND_SECONDS: Final = 30.0


class Password(Protocol):
    """A source of passwords; the repr shows none."""

    def get(self) -> str:
        """Return the password as it is now; may block. Raises PasswordUnavailable."""


@dataclass(frozen=True, slots=True, repr=False)
class FixedPassword:
    """A password that came with the data source."""

    text: str

    def get(self) -> str:
        """Return it."""
        return self.text

    def __repr__(self) -> str:
        return "FixedPassword(***)"


@dataclass(frozen=True, slots=True)
class PasswordVariable:
    """An environment variable that holds the password; `text` is None where it is not set."""

    name: str
    text: str | None = field(default=None, repr=False)

    def get(self) -> str:
        """Return what the variable held."""
        if not self.text:
            raise PasswordUnavailable(f"the environment variable {self.name} is not set")
        return self.text


@dataclass(frozen=True, slots=True)
class PasswordFile:
    """A file that holds nothing but the password; a line's end after it is not part of it."""

    path: Path

    def get(self) -> str:
        """Read the file."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise PasswordUnavailable(f"the password file {self.path}: {reason}") from None
        except UnicodeDecodeError:
            raise PasswordUnavailable(f"the password file {self.path}: not UTF-8 text") from None
        password = text.removesuffix("\n").removesuffix("\r")
        if not password:
            raise PasswordUnavailable(f"the password file {self.path}: it is empty")
        return password


@dataclass(frozen=True, slots=True)
class PasswordCommand:
    """A program that prints the password, such as a cloud's token generator; no shell."""

    argv: Sequence[str]

    def get(self) -> str:
        """Run the program. What it prints is in no message: it may hold a part of the secret."""
        try:
            output = _run(self.argv)
        except OSError as error:
            raise self._unavailable((error.strerror or str(error)).lower()) from None
        except subprocess.TimeoutExpired:
            raise self._unavailable(f"no end within {COMMAND_SECONDS:g} s") from None
        except subprocess.CalledProcessError as error:
            reason = f"it ended with status {error.returncode}"
            raise self._unavailable(f"{reason}; run it by hand to see why") from None
        try:
            password = output.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise self._unavailable("it printed what is not UTF-8 text") from None
        if not password:
            raise self._unavailable("it printed nothing")
        return password

    def _unavailable(self, reason: str) -> PasswordUnavailable:
        # Arguments may hold secrets of their own.
        return PasswordUnavailable(f"the password command {self.argv[0]}: {reason}")


def _run(argv: Sequence[str]) -> bytes:
    """Return what a program prints; when it takes too long its whole group is killed."""
    with subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=COMMAND_SECONDS)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv[0])
    return output
