"""What PostgreSQL's errors mean to the shim, by SQLSTATE."""

from __future__ import annotations

import re

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

from datastore.shim.backends.api import (
    BackendError,
    Corrupt,
    Full,
    OutcomeUnknown,
    Unavailable,
)

# Serialization failure, deadlock, and a lock that somebody else has: evaluated again (log.md A12).
_CONTENDED = {"40001", "40P01", "55P03"}
_FULL = {"53100"}
_REASONS = {
    "25006": "the database can only be read: it is a replica, or set to read only",
    "42501": "a right is missing: {message}",
    "57014": "the statement took too long",
    "57P01": "the server is shutting down",
    "57P03": "the server is starting or shutting down",
}
_DAMAGE = {
    "23505": "a row is there already, so somebody else writes byre's tables: {message}",
    "42P01": "byre's tables are gone: {message}",
    "42703": "byre's tables were changed: {message}",
    "3F000": "the schema of byre's tables is gone: {message}",
    "XX001": "the database is damaged: {message}",
    "XX002": "an index of the database is damaged: {message}; REINDEX makes it again",
}
_NOISE = re.compile(
    r"(?:^|\n)(?:connection failed: )?(?:connection to server (?:at|on) [^\n]*?failed: )?"
    r"(?:FATAL|ERROR): +|connection (?:failed|is bad): |connection to server (?:at|on) "
    r"[^\n]*? failed: "
)


class Silence(psycopg.OperationalError):
    """The server gave no sign of life in time, and the connection was closed."""


class Contended(BackendError):
    """The database asks for another try: nothing was written."""


def explain(error: Exception) -> BackendError:
    """Return what an error means to a statement that may be run again."""
    state = getattr(error, "sqlstate", None) or ""
    message = to_line(error)
    if state in _FULL:
        return Full(f"no space left for the database: {message}")
    if state in _DAMAGE:
        return Corrupt(_DAMAGE[state].format(message=message))
    if state in _REASONS:
        return Unavailable(_REASONS[state].format(message=message))
    return Unavailable(f"the database cannot be used: {message}")


def explain_append(error: psycopg.Error, connection: psycopg.Connection[object]) -> BackendError:
    """Return what an error means to an append.

    An answer that leaves the session alive says that nothing was written. A session that ended,
    or an answer that did not come in time, says nothing at all (log.md A1).
    """
    if not _was_answered(error, connection):
        return OutcomeUnknown(f"the connection was lost during a commit: {to_line(error)}")
    if error.sqlstate in _CONTENDED:
        return Contended(to_line(error))
    return explain(error)


def _was_answered(error: psycopg.Error, connection: psycopg.Connection[object]) -> bool:
    if error.diag.severity_nonlocalized not in {"ERROR", None} or error.sqlstate is None:
        return False
    server = connection.pgconn
    return server.status == ConnStatus.OK and server.transaction_status in {
        TransactionStatus.IDLE,
        TransactionStatus.INERROR,
    }


def to_line(error: Exception) -> str:
    """Return the first line of an error without what libpq puts in front of it."""
    lines = [line.strip() for line in _NOISE.sub("\n", str(error)).splitlines()]
    return next((line for line in lines if line), type(error).__name__)
