"""The database file: who may use it, whether it is ours, and how it is opened.

The file itself is never opened except by SQLite: closing any descriptor of it would drop the
POSIX locks that SQLite holds for the whole process.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Final

from datastore.shim.backends.api import Corrupt, NotReady
from datastore.shim.backends.int64 import to_signed
from datastore.shim.backends.limits import FIRST_REVISION, NO_BATCH, SCHEMA_VERSION

log = logging.getLogger(__name__)

PAGE_BYTES: Final = 8192
WAL_KEEP_BYTES: Final = 8 << 20
RESERVE_BYTES: Final = 16 << 20
"""What the WAL may need to grow while deletions and pruning make room on a full disk."""
_RESERVE_SHARE: Final = 8  # of a small disk no more than that part is kept back
_CACHE_KIBIBYTES: Final = 8192
_BUSY_SECONDS: Final = 0.25
_APPLICATION_ID: Final = int.from_bytes(b"byre", "big")
_INCREMENTAL: Final = 2


class DatabaseFile:
    """The file, locked for this server from `take` to `release`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock_path = self.path
        self._lock = -1
        self._identity = (0, 0)

    def take(self) -> None:
        """Create the file if it is missing and lock it.

        Raises:
            NotReady: The file cannot be used, or another server uses it.
        """
        try:
            self.path = self.path.resolve()
            self._take()
        except (OSError, RuntimeError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            raise NotReady(f"cannot use {self.path}: {reason}") from error

    def _take(self) -> None:
        self._check_directory()
        # SQLite gives its other files the mode of this one.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if not self.path.is_file():
            raise NotReady(f"{self.path} is not a file: give the path of a database file")
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise NotReady(f"cannot write {self.path}: give this user read and write permission")
        status = self.path.stat()
        if status.st_nlink > 1:
            raise NotReady(
                f"{self.path} has {status.st_nlink} names (hard links), which no lock covers: "
                "remove the others, or copy the file"
            )
        if status.st_mode & 0o077:
            log.warning(
                "other users may read the store: chmod 600 it", extra={"path": str(self.path)}
            )
        self._identity = (status.st_dev, status.st_ino)
        self._take_lock()

    def _check_directory(self) -> None:
        directory = self.path.parent
        if not directory.is_dir():
            raise NotReady(f"the directory {directory} does not exist: create it")
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise NotReady(f"cannot write to the directory {directory}: SQLite needs to")

    def _take_lock(self) -> None:
        """Lock a file named after the database's inode, which covers every path to it."""
        device, inode = self._identity
        self._lock_path = self.path.with_name(f".byre-{device:x}-{inode:x}.lock")
        while True:
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(lock)
                raise NotReady(
                    f"{self.path} is in use by process {holder}: stop that server first, or give "
                    "this one another file"
                ) from None
            # A holder that has just stopped may have removed the file that was locked here.
            if _is_open_file(lock, self._lock_path):
                break
            os.close(lock)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock

    def release(self) -> None:
        """Give the lock up. Idempotent. All connections must be closed."""
        if self._lock >= 0:
            self._lock_path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def check(self) -> None:
        """Raise Corrupt if the file in the directory is no longer the one that was locked."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            raise Corrupt(f"{self.path} was removed while in use") from None
        except OSError as error:
            raise Corrupt(f"cannot examine {self.path}: {error.strerror}") from error
        if (status.st_dev, status.st_ino) != self._identity:
            raise Corrupt(f"{self.path} was replaced while in use")

    def spare_bytes(self) -> int | None:
        """Return what the disk can take, less a reserve; None where it does not tell."""
        try:
            disk = os.statvfs(self.path)
        except OSError:
            return None
        reserve = min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _RESERVE_SHARE)
        return disk.f_bavail * disk.f_frsize - reserve

    def connect(self) -> sqlite3.Connection:
        """Return a connection; durability is the caller's choice, the default is FULL."""
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in (
                "synchronous=FULL",
                "wal_autocheckpoint=0",
                f"journal_size_limit={WAL_KEEP_BYTES}",
                f"cache_size=-{_CACHE_KIBIBYTES}",
                "secure_delete=FAST",
                "trusted_schema=OFF",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Create the tables on an empty file, or check that they are those of this version.

        Raises:
            NotReady: It is another program's database, or a newer byre's.
        """
        tables = {
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
        if "byre_head" in tables:
            self._check_version(connection)
        elif "kine" in tables:
            raise NotReady(
                f"{self.path} holds kine's data, which byre does not take over: choose another "
                "file, or run kine itself on this one"
            )
        elif tables:
            raise NotReady(f"{self.path} is another program's database: choose another file")
        else:
            self._create(connection)
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise NotReady(f"{self.path}: its file system cannot share memory, use a local disk")

    def _check_version(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT schema_version FROM byre_head").fetchone()
        version = row[0] if row else 0
        if version > SCHEMA_VERSION:
            raise NotReady(
                f"{self.path} was written by a newer byre (schema {version}, this one knows "
                f"{SCHEMA_VERSION}): start that version, nothing was changed"
            )
        if version < SCHEMA_VERSION:
            raise NotReady(f"{self.path} is damaged (schema {version}): restore a backup")
        if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
            log.warning("the store will not shrink: auto_vacuum was lost in a restore")

    def _create(self, connection: sqlite3.Connection) -> None:
        # SQLAlchemy takes as long to import as the rest of a start, and is needed only once.
        from sqlalchemy.dialects import sqlite

        from datastore.shim.backends import schema

        # All three must come before the first table, and page size before WAL.
        for pragma in (
            f"page_size={PAGE_BYTES}",
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            f"application_id={_APPLICATION_ID}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        for statement in schema.create_statements(sqlite.dialect()):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO byre_head VALUES (1, -1, -1, ?, ?, 0)",
            (to_signed(secrets.randbits(64)), SCHEMA_VERSION),
        )
        connection.execute(
            "INSERT INTO byre_commit VALUES (0, ?, ?, 0, ?)",
            (FIRST_REVISION, NO_BATCH, int(time.time())),
        )
        connection.execute("COMMIT")


def _is_open_file(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the file that is open as `descriptor`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
