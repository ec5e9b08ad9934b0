"""What SQLite's and the system's errors mean to the shim."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from datastore.shim.backends.api import BackendError, Corrupt, Full, NotReady, Unavailable

# The shared-memory file could not grow, which is the disk's being full, not damage.
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_TRANSIENT = {
    sqlite3.SQLITE_BUSY: "another process holds the database: end it (a sqlite3 shell?)",
    sqlite3.SQLITE_LOCKED: "another connection holds the database",
    sqlite3.SQLITE_INTERRUPT: "interrupted",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_PROTOCOL: "too many processes use the database",
    sqlite3.SQLITE_CANTOPEN: "another connection cannot be opened (too many open files?)",
}


def to_backend_error(error: sqlite3.Error, path: Path) -> BackendError:
    """Return what to raise for `error`: Full, Unavailable, or Corrupt for all that is final."""
    if isinstance(error, sqlite3.ProgrammingError):
        return Unavailable("the store is closed")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code in _FULL or code & 0xFF in _FULL:
        return Full(f"no space left for {path}")
    reason = _TRANSIENT.get(code & 0xFF)
    if reason is not None:
        return Unavailable(f"{path}: {reason}")
    if code & 0xFF == sqlite3.SQLITE_CONSTRAINT:
        return Corrupt(f"{path}: somebody else writes this file ({error})")
    name = getattr(error, "sqlite_errorname", "unknown")
    return Corrupt(f"{path}: {error} ({name})")


def to_not_ready(error: sqlite3.Error, path: Path) -> NotReady:
    """Return why the database could not be opened, and what to do about it."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    advice = {
        sqlite3.SQLITE_NOTADB: f"{path} is not a SQLite database: choose another file",
        sqlite3.SQLITE_CORRUPT: f"{path} is damaged ({error}): restore a backup",
        sqlite3.SQLITE_FULL: f"no space left for {path}: make room",
        sqlite3.SQLITE_READONLY: f"cannot write {path}: give this user write permission",
        sqlite3.SQLITE_CANTOPEN: f"cannot open {path} or the files beside it: check permissions",
        sqlite3.SQLITE_BUSY: f"another process holds {path}: end it (a sqlite3 shell?)",
    }
    return NotReady(advice.get(code, f"cannot open {path}: {error}"))
