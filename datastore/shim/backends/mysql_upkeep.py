"""What goes on beside appends on MySQL and MariaDB: leases, members, pruning, size.

Deadlines and heartbeats go by `UTC_TIMESTAMP(6)`, which knows neither time zones nor summer time.
Rows of leases are locked by primary key in ascending order, here and in appends, so that nobody
waits in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

import pymysql

from datastore.shim.backends.api import Member, NotReady, RowId, Size, Unavailable
from datastore.shim.backends.int64 import to_signed, to_unsigned
from datastore.shim.backends.limits import COMMIT_SECONDS, COMMITS_KEPT, MEMBER_SECONDS
from datastore.shim.backends.mysql_append import numbers, quote
from datastore.shim.backends.mysql_errors import explain
from datastore.shim.backends.mysql_session import MysqlDriver, Result, Session
from datastore.shim.backends.sql_link import Link
from datastore.shim.backends.sql_reads import Names
from datastore.shim.backends.stats import Stats

CHUNK_ROWS: Final = 500
FORGOTTEN_SECONDS: Final = 86_400
"""A member that has not been seen for this long is deleted."""
REBUILD_SECONDS: Final = 3600.0

# What is renewed has a deadline above now, what is overdue has not: the second statement tells
# them apart without counting rows, which the driver's flags change the meaning of (log.md A12).
_KEEP_ALIVE = """
UPDATE {lease} SET deadline = UTC_TIMESTAMP(6) + INTERVAL ttl SECOND
WHERE id IN (%(ids)s) AND NOT expired AND deadline > UTC_TIMESTAMP(6) ORDER BY id;
SELECT id FROM {lease}
WHERE id IN (%(ids)s) AND NOT expired AND deadline > UTC_TIMESTAMP(6)
"""
_OVERDUE = """
SELECT id FROM {lease} WHERE NOT expired AND deadline <= UTC_TIMESTAMP(6)
ORDER BY deadline LIMIT %d;
SELECT id FROM {lease} WHERE expired ORDER BY id
"""
_MARK = """
UPDATE {lease} SET expired = 1
WHERE id IN (%s) AND NOT expired AND deadline <= UTC_TIMESTAMP(6) ORDER BY id;
SELECT id FROM {lease} WHERE expired ORDER BY id
"""
_PROMOTE = """
UPDATE {lease} SET deadline = UTC_TIMESTAMP(6) + INTERVAL ttl SECOND
WHERE deadline < UTC_TIMESTAMP(6) + INTERVAL ttl SECOND ORDER BY id
"""
_HEARTBEAT = """
REPLACE INTO {member} (id, name, client_urls, horizon, seen)
VALUES (%d, %b, %b, %d, UTC_TIMESTAMP(6));
DELETE FROM {member} WHERE seen < UTC_TIMESTAMP(6) - INTERVAL %d SECOND;
SELECT id, name, client_urls, horizon FROM {member}
WHERE id <> %d AND seen > UTC_TIMESTAMP(6) - INTERVAL %d SECOND
"""
_HEAD = "SELECT {change}, compacted FROM {head} WHERE id = 1"
_RAISE_PRUNED = "UPDATE {head} SET pruned = GREATEST(pruned, %d) WHERE id = 1 AND compacted >= %d"
_PRUNE_ROWS = "DELETE FROM {log} WHERE id IN (%s)"
# Ascending and to the first that stays: the many that stay are not looked at.
_OLD_COMMITS = """
SELECT {change} FROM {commit} WHERE {change} <= %d ORDER BY {change} LIMIT %d;
SELECT MIN({change}) FROM (SELECT {change}, at FROM {commit} WHERE {change} <= %d
  ORDER BY {change} LIMIT %d) c WHERE at >= UTC_TIMESTAMP(6) - INTERVAL %d SECOND
"""
_PRUNE_COMMITS = "DELETE FROM {commit} WHERE {change} < %d"
_ANALYZE = "ANALYZE NO_WRITE_TO_BINLOG TABLE {log}, {commit}"
_SIZE = """
SELECT SUM(data_length + index_length + data_free), SUM(data_length + index_length)
FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN (%s)
"""
_REBUILD = "ALTER TABLE {0} FORCE, ALGORITHM=INPLACE, LOCK=NONE"


class Upkeep:
    """Leases and members on one link; pruning on another, so that it holds nobody up."""

    def __init__(self, driver: MysqlDriver, names: Names, stats: Stats) -> None:
        self._driver = driver
        self._names = names
        self._stats = stats
        with ExitStack() as stack:
            self._leases: Link[Session] = Link(driver, stats)
            stack.callback(self._leases.close)
            self._pruning: Link[Session] = Link(driver, stats)
            stack.callback(self._pruning.close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the connections."""
        self._stack.close()

    def keep_alive(self, ids: Sequence[int]) -> set[int]:
        """Renew leases that are neither marked nor overdue; return them."""
        found = self._run(self._leases, _KEEP_ALIVE, {"ids": numbers(sorted(ids)).decode()})
        return {lease for (lease,) in found[-1].rows}

    def expire(self, limit: int) -> list[int]:
        """Mark overdue leases and return all that are marked."""
        overdue, marked = self._run(self._leases, _OVERDUE, limit)
        if overdue.rows:
            ids = numbers(sorted(lease for (lease,) in overdue.rows)).decode()
            marked = self._run(self._leases, _MARK, ids)[-1]
        return [lease for (lease,) in marked.rows]

    def promote(self) -> None:
        """Extend every deadline to a full TTL from now at least."""
        self._run(self._leases, _PROMOTE)

    def heartbeat(self, me: Member) -> list[Member]:
        """Note that this server lives; return those that do, by id."""
        number = to_signed(me.id)
        statements = self._names.fill(_HEARTBEAT).encode() % (
            number, quote(me.name.encode()), quote("\n".join(me.client_urls).encode()),
            me.horizon, FORGOTTEN_SECONDS, number, MEMBER_SECONDS,
        )  # fmt: skip
        with self._leases.reading() as session:
            others = session.run(statements)[-1].rows
        found = [
            Member(
                to_unsigned(other),
                name.decode(),
                tuple(urls.decode().split("\n") if urls else ()),
                horizon,
            )
            for other, name, urls, horizon in others
        ]
        return sorted([me._replace(client_urls=tuple(me.client_urls)), *found])

    def prune(self, pruned: int, ids: Sequence[RowId]) -> None:
        """Raise `pruned`, then delete rows and old commits in chunks."""
        link = self._pruning
        ((change, compacted),) = self._run(link, _HEAD)[0].rows
        if pruned > compacted:
            raise ValueError(f"cannot prune {pruned} above compacted {compacted}")
        self._run(link, _RAISE_PRUNED, (pruned, pruned))
        pending = sorted(ids)
        for start in range(0, len(pending), CHUNK_ROWS):
            chunk = numbers(pending[start : start + CHUNK_ROWS]).decode()
            self._run(link, _PRUNE_ROWS, chunk)
        self._stats.pruned_rows += len(pending)
        while self._prune_commits(link, change - COMMITS_KEPT):
            pass

    def _prune_commits(self, link: Link[Session], last: int) -> bool:
        """Delete a chunk of old commits; return whether there may be more."""
        oldest, kept = self._run(
            link, _OLD_COMMITS, (last, CHUNK_ROWS, last, CHUNK_ROWS, COMMIT_SECONDS)
        )
        if not oldest.rows:
            return False
        recent = kept.rows[0][0]
        stop = oldest.rows[-1][0] + 1 if recent is None else recent
        self._run(link, _PRUNE_COMMITS, stop)
        return recent is None and len(oldest.rows) == CHUNK_ROWS

    def size(self) -> Size:
        """Return bytes of the tables with their indexes, and of those without free extents."""
        names = self._names
        tables = ", ".join(name.replace("`", "'") for name in names[:7])
        with self._leases.reading() as session:
            # Without it the sizes are those of some time ago.
            session.run(names.fill(_ANALYZE))
            total, in_use = session.run(_SIZE % tables)[-1].rows[0]
        return Size(int(total), int(in_use))

    def defragment(self) -> None:
        """Rebuild the tables that grow; readers and writers go on."""
        try:
            session = self._driver.connect_to(self._driver.target.database, REBUILD_SECONDS)
        except NotReady as error:
            raise Unavailable(str(error)) from error
        with closing(session):
            try:
                for table in (self._names.log, self._names.commit):
                    session.run(_REBUILD.format(table))
            except pymysql.Error as error:
                raise explain(error) from error

    def _run(self, link: Link[Session], statements: str, values: Any = None) -> list[Result]:
        text = self._names.fill(statements)
        with link.reading() as session:
            return session.run(text if values is None else text % values)
