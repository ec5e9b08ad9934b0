"""What goes on beside appends on PostgreSQL: leases, members, pruning, size.

Deadlines and heartbeats go by the database's clock: `clock_timestamp()`, since `now()` is when
the transaction began and may be old after a wait for a lock (log.md A5).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import psycopg

from datastore.shim.backends.api import Member, NotReady, RowId, Size, Unavailable
from datastore.shim.backends.int64 import to_signed, to_unsigned
from datastore.shim.backends.limits import COMMIT_SECONDS, COMMITS_KEPT, MEMBER_SECONDS
from datastore.shim.backends.postgresql_arrays import int8s
from datastore.shim.backends.postgresql_errors import explain
from datastore.shim.backends.postgresql_session import PostgresqlDriver, Session
from datastore.shim.backends.postgresql_snapshots import SnapshotWatch
from datastore.shim.backends.sql_link import Link
from datastore.shim.backends.sql_reads import Names
from datastore.shim.backends.stats import Stats

CHUNK_ROWS: Final = 1000
FORGOTTEN_SECONDS: Final = 86_400.0
"""A member that has not been seen for this long is deleted."""
VACUUM_SECONDS: Final = 3600.0

# Rows are locked in the order of ids, as in appends, so that nobody waits in a circle.
_KEEP_ALIVE = """
WITH o AS (SELECT id FROM {lease} WHERE id = ANY(%b) AND NOT expired ORDER BY id FOR UPDATE)
UPDATE {lease} l SET deadline = clock_timestamp() + l.ttl * interval '1 second'
FROM o WHERE l.id = o.id AND NOT l.expired AND l.deadline > clock_timestamp()
RETURNING l.id
"""
_EXPIRE = """
WITH o AS (SELECT id FROM {lease} WHERE NOT expired AND deadline <= clock_timestamp()
  ORDER BY deadline LIMIT %s FOR UPDATE SKIP LOCKED),
m AS (UPDATE {lease} l SET expired = true FROM o
  WHERE l.id = o.id AND NOT l.expired AND l.deadline <= clock_timestamp() RETURNING l.id)
SELECT id FROM m UNION SELECT id FROM {lease} WHERE expired ORDER BY id
"""
_PROMOTE = """
WITH o AS (SELECT id FROM {lease} ORDER BY id FOR UPDATE)
UPDATE {lease} l
SET deadline = greatest(l.deadline, clock_timestamp() + l.ttl * interval '1 second')
FROM o WHERE l.id = o.id
"""
_HEARTBEAT = """
WITH me AS (INSERT INTO {member} (id, name, client_urls, horizon, seen)
  VALUES (%(id)s, %(name)s, %(urls)s, %(horizon)s, clock_timestamp())
  ON CONFLICT (id) DO UPDATE SET name = excluded.name, client_urls = excluded.client_urls,
    horizon = excluded.horizon, seen = excluded.seen RETURNING 1),
gone AS (DELETE FROM {member} WHERE id <> %(id)s
  AND seen < clock_timestamp() - %(forgotten)s * interval '1 second')
SELECT id, name, client_urls, horizon FROM {member}
WHERE id <> %(id)s AND seen > clock_timestamp() - %(live)s * interval '1 second'
"""
_RAISE_PRUNED = """
UPDATE {head} SET pruned = greatest(pruned, %s::bigint) WHERE id = 1 AND compacted >= %s
RETURNING pruned
"""
_COMPACTED = "SELECT compacted FROM {head} WHERE id = 1"
_PRUNE_ROWS = "DELETE FROM {log} WHERE id = ANY(%b)"
_PRUNE_COMMITS = """
DELETE FROM {commit} WHERE change = ANY(ARRAY(
  SELECT change FROM {commit}
  WHERE change <= (SELECT change FROM {head} WHERE id = 1) - %s
    AND at < clock_timestamp() - %s * interval '1 second'
  ORDER BY change LIMIT %s))
RETURNING change
"""
_SIZE = """
SELECT sum(pg_total_relation_size(relid))::bigint,
  sum(CASE WHEN n_dead_tup > 0 THEN
    pg_total_relation_size(relid) * (n_live_tup::float8 / (n_live_tup + n_dead_tup))
    ELSE pg_total_relation_size(relid) END)::bigint
FROM (SELECT t.relid, coalesce(s.n_live_tup, 0) AS n_live_tup,
    coalesce(s.n_dead_tup, 0) AS n_dead_tup
  FROM unnest(%s::regclass[]) t (relid) LEFT JOIN pg_stat_all_tables s USING (relid)) q
"""


class Upkeep:
    """Leases and members on one link; pruning on another, so that it holds nobody up."""

    def __init__(self, driver: PostgresqlDriver, names: Names, stats: Stats) -> None:
        self._driver = driver
        self._stats = stats
        self._leases: Link[Session] = Link(driver, stats)
        self._pruning: Link[Session] = Link(driver, stats)
        self._snapshots = SnapshotWatch(names)
        self._tables = [names.head, names.commit, names.log, names.lease, names.member]
        fill = names.fill
        self._keep_alive, self._expire, self._promote = map(fill, (_KEEP_ALIVE, _EXPIRE, _PROMOTE))
        self._heartbeat, self._raise, self._compacted = map(
            fill, (_HEARTBEAT, _RAISE_PRUNED, _COMPACTED)
        )
        self._prune_rows, self._prune_commits = map(fill, (_PRUNE_ROWS, _PRUNE_COMMITS))

    def close(self) -> None:
        """Close the connections."""
        self._leases.close()
        self._pruning.close()

    def keep_alive(self, ids: Sequence[int]) -> set[int]:
        """Renew leases that are neither marked nor overdue; return them."""
        return {lease for (lease,) in self._leases.query(self._keep_alive, (int8s(ids),))}

    def expire(self, limit: int) -> list[int]:
        """Mark overdue leases and return all that are marked."""
        return [lease for (lease,) in self._leases.query(self._expire, (limit,))]

    def promote(self) -> None:
        """Extend every deadline to a full TTL from now at least."""
        self._leases.query(self._promote)

    def heartbeat(self, me: Member) -> list[Member]:
        """Note that this server lives; return those that do, by id."""
        others = self._leases.query(
            self._heartbeat,
            {
                "id": to_signed(me.id),
                "name": me.name,
                "urls": "\n".join(me.client_urls),
                "horizon": me.horizon,
                "forgotten": FORGOTTEN_SECONDS,
                "live": MEMBER_SECONDS,
            },
        )
        found = [
            Member(to_unsigned(number), name, tuple(urls.split("\n") if urls else ()), horizon)
            for number, name, urls, horizon in others
        ]
        self._snapshots.look(self._leases, time.monotonic())
        return sorted([me._replace(client_urls=tuple(me.client_urls)), *found])

    def prune(self, pruned: int, ids: Sequence[RowId]) -> None:
        """Raise `pruned`, then delete rows and old commits in chunks."""
        link = self._pruning
        try:
            if not link.query(self._raise, (pruned, pruned)):
                ((compacted,),) = link.query(self._compacted)
                raise ValueError(f"cannot prune {pruned} above compacted {compacted}")
            pending = sorted(ids)
            for start in range(0, len(pending), CHUNK_ROWS):
                link.query(self._prune_rows, (int8s(pending[start : start + CHUNK_ROWS]),))
            self._stats.pruned_rows += len(pending)
            while (
                len(link.query(self._prune_commits, (COMMITS_KEPT, COMMIT_SECONDS, CHUNK_ROWS)))
                == CHUNK_ROWS
            ):
                pass
        finally:
            link.drop()

    def size(self) -> Size:
        """Return bytes of all tables with their indexes, and about how many are not garbage."""
        ((total, in_use),) = self._leases.query(_SIZE, (self._tables,))
        return Size(total, min(in_use, total))

    def defragment(self) -> None:
        """Free what was deleted and make indexes anew; readers and writers go on."""
        try:
            session = self._driver.connect()
        except NotReady as error:
            raise Unavailable(str(error)) from error
        with closing(session):
            session.limit = VACUUM_SECONDS
            try:
                if not session.pooled:
                    session.execute("SET statement_timeout = 0")
                for table in self._tables:
                    session.execute(f"VACUUM {table}")
                    session.execute(f"REINDEX TABLE CONCURRENTLY {table}")
            except psycopg.Error as error:
                raise explain(error) from error
