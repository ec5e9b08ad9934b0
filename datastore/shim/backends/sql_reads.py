"""What PostgreSQL and MySQL have in common: names of tables, reads, and what rows mean.

Each read is one statement, so one snapshot. A page of rows is cut where `limit` rows or
`PAGE_BYTES` are reached, to whole commits or revisions, by the database: what is not wanted does
not travel. A batch is never split (etcd-contract.md T28).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from datastore.shim.backends.api import (
    PAGE_BYTES,
    Alarm,
    AuthState,
    Commit,
    Corrupt,
    Diverged,
    Head,
    Kinds,
    Lease,
    Meta,
    Page,
    Row,
    RowId,
    Tail,
    Unavailable,
    to_row_id,
)
from datastore.shim.backends.int64 import to_unsigned
from datastore.shim.backends.sql_link import Link

_LAST_ID = (1 << 63) - 1
_HEAD_PART, _COMMIT_PART, _ROW_PART = 0, 1, 2


class Names(NamedTuple):
    """What statements call things in one database, quoted as it wants; `str.format` fields."""

    head: str
    commit: str
    log: str
    lease: str
    auth: str
    alarm: str
    member: str
    change: str
    """The column `change`, which MySQL reserves."""
    key: str
    """The column `key`, likewise."""
    no_bytes: str
    """A NULL of the type of keys and values."""
    replica: str
    """An expression that is true where nothing can be written."""
    remaining: str
    """Seconds from the database's clock to `deadline`, as a float."""

    def fill(self, statement: str) -> str:
        """Return a statement with the names filled in."""
        return statement.format(**self._asdict())


_HEAD = """
SELECT {change}, revision, compacted, pruned, cluster_id, schema_version,
  CASE WHEN {replica} THEN 1 ELSE 0 END
FROM {head} WHERE id = 1
"""
_COMMIT = "SELECT {change}, revision, batch, kinds FROM {commit} WHERE {change} = %s"
_OLDEST = "SELECT min({change}) FROM {commit}"
_TAIL = """
WITH c AS (SELECT {change} AS n, revision, batch, kinds FROM {commit}
  WHERE {change} >= %(position)s ORDER BY {change} LIMIT %(commits)s),
w AS (SELECT id, row_number() OVER (ORDER BY id) AS n,
    sum(octet_length({key}) + coalesce(octet_length(value), 0)) OVER (ORDER BY id) AS bytes
  FROM (SELECT id, {key}, value FROM {log}
    WHERE id >= %(first)s AND id < (SELECT (max(revision) + 1) << 20 FROM c)
    ORDER BY id LIMIT %(limit)s) p),
x AS (SELECT min(id) >> 20 AS revision FROM w WHERE n >= %(limit)s OR bytes >= %(bytes)s),
e AS (SELECT coalesce(
    (SELECT min(c.n) FROM c, x WHERE c.n > %(position)s AND c.revision >= x.revision),
    (SELECT max(c.n) FROM c)) AS n)
SELECT 0, {change}, revision, compacted, pruned, cluster_id, schema_version,
  CASE WHEN {replica} THEN 1 ELSE 0 END, {no_bytes}, {no_bytes}
FROM {head} WHERE id = 1
UNION ALL SELECT 1, c.n, c.revision, c.kinds, 0, 0, 0, 0, c.batch, {no_bytes}
FROM c, e WHERE c.n <= e.n
UNION ALL SELECT 2, id, create_revision, version, lease, 0, 0, 0, {key}, value
FROM {log} WHERE id >= %(first)s
  AND id < (SELECT (c.revision + 1) << 20 FROM c, e WHERE c.n = e.n)
"""
_HISTORY = """
WITH w AS (SELECT id, row_number() OVER (ORDER BY id) AS n,
    sum(octet_length({key}) + coalesce(octet_length(value), 0)) OVER (ORDER BY id) AS bytes
  FROM (SELECT id, {key}, value FROM {log}
    WHERE id >= %(first)s AND id < %(stop)s ORDER BY id LIMIT %(limit)s) p),
x AS (SELECT coalesce(((min(id) >> 20) + 1) << 20, %(stop)s) AS stop
  FROM w WHERE n >= %(limit)s OR bytes >= %(bytes)s)
SELECT 0, h.pruned,
  CASE WHEN EXISTS (SELECT 1 FROM {log} l WHERE l.id >= x.stop AND l.id < %(stop)s)
    THEN 1 ELSE 0 END, 0, 0, {no_bytes}, {no_bytes}
FROM {head} h, x WHERE h.id = 1
UNION ALL SELECT 2, id, create_revision, version, lease, {key}, value
FROM {log} WHERE id >= %(first)s AND id < (SELECT stop FROM x)
"""
_LEASES = "SELECT id, ttl, {remaining}, expired FROM {lease} ORDER BY id"
_AUTH = "SELECT kind, name, body FROM {auth}"
_ALARMS = "SELECT member, kind FROM {alarm} ORDER BY kind, member"


class Statements:
    """The shared reads in the words of one database, which may replace one that it plans badly."""

    def __init__(self, names: Names) -> None:
        self.head = names.fill(_HEAD)
        self.commit = names.fill(_COMMIT)
        self.oldest = names.fill(_OLDEST)
        self.tail = names.fill(_TAIL)
        self.history = names.fill(_HISTORY)
        self.leases = names.fill(_LEASES)
        self.auth = names.fill(_AUTH)
        self.alarms = names.fill(_ALARMS)


class Reads:
    """Reads of the log over two links: one for head and tail, one for what may take longer."""

    def __init__(self, statements: Statements, tails: Link[Any], rows: Link[Any]) -> None:
        self._statements = statements
        self._tails = tails
        self._rows = rows

    def head(self) -> Head:
        """Return the head, from a server that can write."""
        with self._leaving_replicas():
            return to_head(self._tails.query(self._statements.head))

    def commit(self, change: int) -> Commit | None:
        """Return the commit row of `change`, or None."""
        found = self._tails.query(self._statements.commit, (change,))
        return to_commit(*found[0]) if found else None

    def tail(self, position: Commit, limit: int) -> Tail:
        """Return commits after `position`; see `Backend.tail`. Hot: every read index asks."""
        with self._leaving_replicas():
            found = self._tails.query(self._statements.tail, tail_values(position, limit))
            return read_tail(position, found, self.oldest)

    @contextmanager
    def _leaving_replicas(self) -> Iterator[None]:
        """Let go of a connection that cannot be used: the next may lead to the primary."""
        try:
            yield
        except Unavailable:
            self._tails.drop()
            raise

    def oldest(self) -> int:
        """Return the oldest commit that is kept."""
        return int(self._tails.query(self._statements.oldest)[0][0])

    def history(self, first: int, last: int, limit: int) -> Page:
        """Return a page of whole revisions; see `Backend.history`."""
        values = {
            "first": to_row_id(first, 0),
            "stop": min(to_row_id(last + 1, 0), _LAST_ID),
            "limit": max(limit, 1),
            "bytes": PAGE_BYTES,
        }
        pruned, more, rows = 0, False, []
        for part, number, second, third, fourth, key, value in self._rows.query(
            self._statements.history, values
        ):
            if part == _ROW_PART:
                rows.append(Row(Meta(number, second, third, fourth, key), value))
            else:
                pruned, more = number, bool(second)
        rows.sort(key=_row_id)
        return Page(pruned, rows, more)

    def leases(self) -> list[Lease]:
        """Return all leases, with the seconds they have left by the database's clock."""
        found = self._rows.query(self._statements.leases)
        return [Lease(i, ttl, float(left), bool(expired)) for i, ttl, left, expired in found]

    def auth(self) -> AuthState:
        """Return the auth state."""
        found = self._rows.query(self._statements.auth)
        return AuthState({(kind, bytes(name)): bytes(body) for kind, name, body in found})

    def alarms(self) -> list[Alarm]:
        """Return the active alarms."""
        found = self._rows.query(self._statements.alarms)
        return [Alarm(to_unsigned(member), kind) for member, kind in found]


def tail_values(position: Commit, limit: int) -> dict[str, int]:
    """Return what the tail statement wants to know."""
    return {
        "position": position.change,
        "commits": max(limit, 1) + 1,
        "first": to_row_id(position.revision + 1, 0),
        "limit": max(limit, 1),
        "bytes": PAGE_BYTES,
    }


def to_head(found: Sequence[Any]) -> Head:
    """Return the head that the head statement found.

    Raises:
        Unavailable: the server is a replica, whose head may be an old one (log.md A13).
        Corrupt: the row is gone.
    """
    if not found:
        raise Corrupt("the row of the head is gone: somebody else writes byre's tables")
    change, revision, compacted, pruned, cluster_id, schema_version, replica = found[0]
    if replica:
        raise Unavailable(
            "the database can only be read: it is a replica, or set to read only; "
            "connect to the primary"
        )
    return Head(change, revision, compacted, pruned, to_unsigned(cluster_id), schema_version)


def to_commit(change: int, revision: int, batch: bytes, kinds: int) -> Commit:
    """Return a commit from its columns."""
    return Commit(change, revision, bytes(batch), Kinds(kinds))


def read_tail(position: Commit, found: Sequence[Any], oldest: Callable[[], int]) -> Tail:
    """Return the tail from its parts, in any order.

    Args:
        position: Where the reader stands; verified.
        found: What the tail statement returned.
        oldest: Called for the oldest commit that is kept, where that of `position` is missing.

    Raises:
        Diverged: The log has another commit at the position, or ends before it.
    """
    head: list[Any] = []
    commits: list[Commit] = []
    rows: list[Row] = []
    for part, *numbers, first, second in found:
        if part == _ROW_PART:
            row_id, create_revision, version, lease, *_ = numbers
            rows.append(Row(Meta(row_id, create_revision, version, lease, first), second))
        elif part == _COMMIT_PART:
            change, revision, kinds, *_ = numbers
            commits.append(to_commit(change, revision, first, kinds))
        else:
            head = [numbers]
    stands = to_head(head)
    commits.sort()
    rows.sort(key=_row_id)
    verify_position(position, commits, stands, oldest)
    return Tail(stands, [c for c in commits if c.change > position.change], rows)


def verify_position(
    position: Commit, commits: Sequence[Commit], head: Head, oldest: Callable[[], int]
) -> None:
    """Raise Diverged unless `commits`, ascending, begin with the one that the reader stands on."""
    if position.change > head.change:
        raise Diverged(
            f"the log ends at commit {head.change}, before {position.change} that this server "
            "applied: the database has lost commits"
        )
    stored = commits[0] if commits and commits[0].change == position.change else None
    if stored is None and position.change < oldest():
        return
    if stored is None or stored.batch != position.batch:
        raise Diverged(f"commit {position.change} is another one than this server applied")


def _row_id(row: Row) -> RowId:
    return row.meta.id
