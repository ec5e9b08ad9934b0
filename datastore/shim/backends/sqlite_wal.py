"""The write-ahead log's file: made durable by us, and how far it is filled.

A commit with `synchronous=NORMAL` writes its frames to the WAL and does not wait for the disk.
Waiting is `WalFile.sync`, our own `fdatasync`, which others than the loop may do. That is as
durable as `synchronous=FULL` because (write-path.md 7): the first commit after the WAL was
created is FULL, which makes its directory entry durable; the file is still the one in the
directory; a sync that failed is final, since the kernel may have dropped the pages; and nothing
is applied before it.

SQLite locks neither the WAL nor byte ranges of it, so opening it here takes nothing from SQLite.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from datastore.shim.backends.api import Corrupt

SLOW_SECONDS = 0.001
"""Mean time of a sync above which the loop never waits for it."""

_WEIGHT = 0.1
_LOOK_BYTES = 256 << 10
_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24


class WalFile:
    """The open WAL of a database."""

    def __init__(self, database: Path, page_bytes: int) -> None:
        self.path = database.with_name(database.name + "-wal")
        self.mean_seconds = 0.0
        self._frame_bytes = page_bytes + _FRAME_HEADER_BYTES
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        self._inode = os.fstat(self.descriptor).st_ino
        self._frames = 0
        self._salt = b""
        self._slow = False
        self._size = 0
        self._noticed_size = 0

    def is_slow(self) -> bool:
        """Whether a sync takes longer than an event loop should wait."""
        return self._slow

    def sync(self, *, beside: bool = False) -> float:
        """Make everything committed so far durable; return the seconds it took. Hot.

        Raises:
            Corrupt: The sync failed, or the file was removed; the process must end.
        """
        started = time.perf_counter()
        failure: OSError | None = None
        try:
            os.fdatasync(self.descriptor)
        except OSError as error:
            failure = error
        elapsed = time.perf_counter() - started
        self.synced(failure, elapsed, beside=beside)
        return elapsed

    def synced(self, error: OSError | None, seconds: float, *, beside: bool) -> None:
        """Take note of a sync, by whom it may be. Raises as `sync`. Hot."""
        if error is not None:
            raise Corrupt(f"cannot sync {self.path}: {error.strerror}") from error
        status = os.fstat(self.descriptor)
        self._size = status.st_size
        if not status.st_nlink:
            raise Corrupt(f"{self.path} was removed while in use")
        self.note(seconds, beside=beside)

    def note(self, seconds: float, *, beside: bool) -> None:
        """Take note of how long a sync took.

        Beside the loop the time includes waiting for the interpreter lock or the loop, so there
        only short times say anything about the disk. A single hiccup counts ten times the limit
        at most.
        """
        if beside and seconds >= SLOW_SECONDS:
            return
        sample = min(seconds, 10 * SLOW_SECONDS)
        self.mean_seconds += _WEIGHT * (sample - self.mean_seconds)
        limit = 0.7 * SLOW_SECONDS if self._slow else SLOW_SECONDS
        self._slow = self.mean_seconds >= limit

    def has_changed(self) -> bool:
        """Whether the size is much larger, or smaller, than when that was last said. Hot."""
        if 0 <= self._size - self._noticed_size < _LOOK_BYTES:
            return False
        self._noticed_size = self._size
        return True

    def used_bytes(self) -> int:
        """Return how far the log is filled, which is less than its size once it is re-used.

        Frames of this round carry the salt of the header; behind them are those of earlier ones.

        Raises:
            Corrupt: The file cannot be read.
        """
        try:
            return _HEADER_BYTES + self._count_frames() * self._frame_bytes
        except OSError as error:
            raise Corrupt(f"cannot read {self.path}: {error.strerror}") from error

    def _count_frames(self) -> int:
        salt = os.pread(self.descriptor, 8, 16)
        if salt != self._salt:
            self._salt, self._frames = salt, 0
        step = 1
        while self._is_current(self._frames + step - 1):
            self._frames += step
            step *= 2
        while step > 1:
            step //= 2
            if self._is_current(self._frames + step - 1):
                self._frames += step
        return self._frames

    def _is_current(self, frame: int) -> bool:
        offset = _HEADER_BYTES + frame * self._frame_bytes + 8
        return os.pread(self.descriptor, 8, offset) == self._salt != b""

    def check(self) -> None:
        """Raise Corrupt if the file in the directory is not the open one."""
        try:
            inode = self.path.stat().st_ino
        except OSError:
            inode = -1
        if inode != self._inode:
            raise Corrupt(f"{self.path} was removed or replaced while in use")

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
