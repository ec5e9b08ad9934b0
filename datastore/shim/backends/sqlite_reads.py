"""Snapshot reads of a SQLite log, on connections that never write."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from datastore.shim.backends.api import (
    PAGE_BYTES,
    Alarm,
    AuthState,
    Commit,
    Diverged,
    Head,
    Kinds,
    Lease,
    Meta,
    Page,
    Row,
    RowId,
    Size,
    Tail,
    Values,
    to_revision,
    to_row_id,
)
from datastore.shim.backends.int64 import to_unsigned
from datastore.shim.backends.sqlite_errors import to_backend_error
from datastore.shim.backends.sqlite_file import DatabaseFile
from datastore.shim.backends.stats import Stats

PAGE_ROWS = 1000

_HEAD = """
SELECT c.change, c.revision, h.compacted, h.pruned, h.cluster_id, h.schema_version
FROM byre_head h, (SELECT change, revision FROM byre_commit ORDER BY change DESC LIMIT 1) c
"""
_COMMIT = "SELECT change, revision, batch, kinds FROM byre_commit WHERE change "
_ROWS = (
    "SELECT id, create_revision, version, lease, key, value FROM byre_log "
    "WHERE id >= ? AND id < ? ORDER BY id"
)
# CROSS JOIN fixes the order: one lookup by primary key for each id.
_VALUES = (
    "SELECT j.key, l.id, l.value FROM json_each(?) j CROSS JOIN byre_log l ON l.id = j.value "
    "WHERE l.value IS NOT NULL"
)


class Reads:
    """One reading connection; calls from several threads take turns."""

    def __init__(self, file: DatabaseFile, stats: Stats) -> None:
        self._file = file
        self._stats = stats
        self._lock = threading.Lock()
        self._connection = file.connect()
        self._connection.execute("PRAGMA query_only=ON")

    def close(self) -> None:
        """Close the connection, waiting for a read under way. Idempotent."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            started = time.perf_counter()
            connection = self._connection
            try:
                connection.execute("BEGIN")
                try:
                    yield connection
                finally:
                    connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise to_backend_error(error, self._file.path) from error
            finally:
                self._stats.read_seconds.observe(time.perf_counter() - started)

    def head(self) -> Head:
        """Return the head."""
        with self._snapshot() as connection:
            return read_head(connection)

    def commit(self, change: int) -> Commit | None:
        """Return the commit row of `change`, or None."""
        with self._snapshot() as connection:
            return _read_commit(connection, change)

    @contextmanager
    def load(self) -> Iterator[tuple[Head, Commit, Iterator[Sequence[Meta]]]]:
        """Give the head, its commit and pages of every row's meta, in one snapshot."""
        with self._snapshot() as connection:
            head = read_head(connection)
            commit = _read_commit(connection, head.change)
            assert commit is not None
            cursor = connection.execute(
                "SELECT id, create_revision, version, lease, key FROM byre_log ORDER BY id"
            )
            yield head, commit, _to_pages(cursor)

    def tail(self, position: Commit, limit: int) -> Tail:
        """Return commits after `position`; see `Backend.tail`."""
        with self._snapshot() as connection:
            head = read_head(connection)
            _verify(connection, position, head)
            found = connection.execute(
                _COMMIT + "> ? ORDER BY change LIMIT ?", (position.change, max(limit, 1))
            )
            commits = [_to_commit(*row) for row in found]
            if not commits:
                return Tail(head, [], [])
            revisions = [commit.revision for commit in commits]
            cursor = connection.execute(
                _ROWS, (to_row_id(position.revision + 1, 0), to_row_id(revisions[-1] + 1, 0))
            )
            rows, more = _take(
                cursor, limit, lambda row_id: bisect_left(revisions, to_revision(row_id))
            )
        if more:
            last = bisect_left(revisions, to_revision(rows[-1].meta.id))
            del commits[last + 1 :]
        return Tail(head, commits, rows)

    def history(self, first: int, last: int, limit: int) -> Page:
        """Return a page of whole revisions; see `Backend.history`."""
        with self._snapshot() as connection:
            (pruned,) = connection.execute("SELECT pruned FROM byre_head").fetchone()
            cursor = connection.execute(_ROWS, (to_row_id(first, 0), to_row_id(last + 1, 0)))
            rows, more = _take(cursor, limit, to_revision)
        return Page(pruned, rows, more)

    def values(self, ids: Sequence[RowId]) -> Values:
        """Return a page of values; see `Backend.values`."""
        found: dict[RowId, bytes] = {}
        size = 0
        with self._snapshot() as connection:
            (pruned,) = connection.execute("SELECT pruned FROM byre_head").fetchone()
            for at, row_id, value in connection.execute(_VALUES, (json.dumps(list(ids)),)):
                if size >= PAGE_BYTES:
                    return Values(pruned, found, at)
                if row_id not in found:
                    found[row_id] = value
                    size += len(value)
        return Values(pruned, found, len(ids))

    def leases(self) -> list[Lease]:
        """Return all leases; deadlines are not kept here."""
        with self._snapshot() as connection:
            found = connection.execute("SELECT id, ttl FROM byre_lease ORDER BY id")
            return [Lease(lease, ttl, None, expired=False) for lease, ttl in found]

    def auth(self) -> AuthState:
        """Return the auth state."""
        with self._snapshot() as connection:
            found = connection.execute("SELECT kind, name, body FROM byre_auth")
            return AuthState({(kind, name): body for kind, name, body in found})

    def alarms(self) -> list[Alarm]:
        """Return the active alarms."""
        with self._snapshot() as connection:
            found = connection.execute("SELECT member, kind FROM byre_alarm ORDER BY kind, member")
            return [Alarm(to_unsigned(member), kind) for member, kind in found]

    def size(self) -> Size:
        """Return bytes of the file's pages, of those in use, and what the disk can still take."""
        with self._snapshot() as connection:
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        return Size(pages * page_bytes, (pages - free) * page_bytes, self._file.spare_bytes())


def read_head(connection: sqlite3.Connection) -> Head:
    """Return the head as this connection sees it."""
    change, revision, compacted, pruned, cluster_id, version = connection.execute(_HEAD).fetchone()
    return Head(change, revision, compacted, pruned, to_unsigned(cluster_id), version)


def _to_pages(cursor: sqlite3.Cursor) -> Iterator[Sequence[Meta]]:
    while rows := cursor.fetchmany(PAGE_ROWS):
        yield [Meta._make(row) for row in rows]


def _read_commit(connection: sqlite3.Connection, change: int) -> Commit | None:
    row = connection.execute(_COMMIT + "= ?", (change,)).fetchone()
    return None if row is None else _to_commit(*row)


def _to_commit(change: int, revision: int, batch: bytes, kinds: int) -> Commit:
    return Commit(change, revision, batch, Kinds(kinds))


def _verify(connection: sqlite3.Connection, position: Commit, head: Head) -> None:
    if position.change > head.change:
        raise Diverged(f"the log ends at commit {head.change}, before {position.change}")
    stored = _read_commit(connection, position.change)
    if stored is None:
        (oldest,) = connection.execute("SELECT min(change) FROM byre_commit").fetchone()
        if position.change < oldest:
            return
    if stored is None or stored.batch != position.batch:
        raise Diverged(f"commit {position.change} is another one than this server applied")


def _take(
    cursor: Iterable[tuple[RowId, int, int, int, bytes, bytes | None]],
    limit: int,
    to_unit: Callable[[RowId], int],
) -> tuple[list[Row], bool]:
    """Take whole units until there are `limit` rows or a page of bytes; say if more follow."""
    rows: list[Row] = []
    size = 0
    unit = -1
    for row_id, create_revision, version, lease, key, value in cursor:
        if len(rows) >= max(limit, 1) or size >= PAGE_BYTES:
            if to_unit(row_id) != unit:
                return rows, True
        else:
            unit = to_unit(row_id)
        rows.append(Row(Meta(row_id, create_revision, version, lease, key), value))
        size += len(key) + len(value or b"")
    return rows, False
