"""The log in PostgreSQL, shared by any number of servers.

An append is one statement and one round trip (postgresql_append.py); so are the reads
(sql_reads.py). Where another server has committed lately, a *turn* takes an advisory lock in the
round trip of the tail, and gives it up with the append's commit: two round trips, and nobody
loses (log.md A9). Connections are one per lane: appends; head and tail; rows; leases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import psycopg

from datastore.dsn.target import Target
from datastore.shim.backends.api import (
    PAGE_BYTES,
    Appended,
    Batch,
    Closeable,
    Commit,
    Head,
    Member,
    Meta,
    Moved,
    RowId,
    Turn,
    Values,
    cut_values,
)
from datastore.shim.backends.postgresql_append import Append
from datastore.shim.backends.postgresql_arrays import int8s
from datastore.shim.backends.postgresql_errors import Contended, explain_append
from datastore.shim.backends.postgresql_hints import Hints, to_channel
from datastore.shim.backends.postgresql_load import load
from datastore.shim.backends.postgresql_session import PostgresqlDriver, Session
from datastore.shim.backends.postgresql_setup import set_up, to_lock_key, to_names
from datastore.shim.backends.postgresql_turn import PostgresqlTurn
from datastore.shim.backends.postgresql_upkeep import Upkeep
from datastore.shim.backends.sql_backend import SqlBackend
from datastore.shim.backends.sql_link import Link, own_connection
from datastore.shim.backends.sql_reads import Names, Reads, Statements, to_head
from datastore.shim.backends.stats import Stats

_VALUES_CHUNK: Final = 250
_VALUES: Final = """
SELECT h.pruned, l.id, l.value FROM {head} h
LEFT JOIN (SELECT id, value, sum(octet_length(value)) OVER (ORDER BY array_position(%b, id))
    - octet_length(value) AS before
  FROM {log} WHERE id = ANY(%b) AND value IS NOT NULL) l ON l.before < %b
WHERE h.id = 1
"""


class _Connections:
    """What there is while the store is open; each link connects when it is first used."""

    def __init__(self, driver: PostgresqlDriver, schema_name: str, stats: Stats) -> None:
        target = driver.target
        self.names: Names = to_names(target, schema_name)
        self.statements = Statements(self.names)
        self.build = Append(self.names).build
        self.values = self.names.fill(_VALUES)
        self.turn_key = to_lock_key(target, schema_name, "turn")
        with ExitStack() as stack:
            self.appends, self.tails, self.rows = (_link(driver, stats, stack) for _ in range(3))
            self.reads = Reads(self.statements, self.tails, self.rows)
            self.upkeep = Upkeep(driver, self.names, stats)
            stack.callback(self.upkeep.close)
            self.hints = Hints(driver, to_channel(target, schema_name), stats)
            self.hints.start()
            stack.callback(self.hints.close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close everything, waiting for calls under way."""
        self._stack.close()


class PostgresqlBackend(SqlBackend[_Connections]):
    """One server's access to a store in PostgreSQL."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._driver = PostgresqlDriver(target)
        self._pooled = False

    def open(self) -> Head:
        return self._open(
            lambda: _Connections(self._driver, set_up(self._driver), self.stats), self._begin
        )

    def _begin(self, connections: _Connections) -> Head:
        head = connections.reads.head()
        with connections.tails.use() as session:
            self._pooled = session.pooled
        return head

    def append(self, batch: Batch) -> Appended | Moved:
        """Append in one round trip. Hot."""
        use = self._use()
        started = time.perf_counter()
        statement, values = use.build(batch)
        try:
            with use.appends.use() as session:
                try:
                    found = self._driver.query(session, statement, values)
                except psycopg.Error as error:
                    raise explain_append(error, session) from error
        except Contended:
            found = ()
        self.stats.append_seconds.observe(time.perf_counter() - started)
        return self._settle(use, batch, found)

    def _settle(
        self, use: _Connections, batch: Batch, found: Sequence[tuple[object, ...]]
    ) -> Appended | Moved:
        """Say what an append's rows mean, and let others know."""
        if found:
            self.stats.batch_rows.observe(len(batch.rows))
            use.hints.committed()
            return Appended(to_head(found))
        return self._moved(use)

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Give the turn; the lock is taken by the first `tail`, in its round trip."""
        use = self._use()
        turn = PostgresqlTurn(
            link=use.appends,
            tail_statement=use.statements.tail,
            key=use.turn_key,
            build=use.build,
            oldest=use.reads.oldest,
            settle=lambda batch, found: self._settle(use, batch, found),
        )
        try:
            yield turn
        finally:
            turn.end()

    @contextmanager
    def load(self) -> Iterator[tuple[Head, Commit, Iterator[Sequence[Meta]]]]:
        use = self._use()
        with (
            own_connection(self._driver) as session,
            load(session, use.names, use.statements) as loaded,
        ):
            yield loaded

    def values(self, ids: Sequence[RowId]) -> Values:
        # In chunks: each may be megabytes. `pruned` only rises, so the last one holds.
        use = self._use()
        pruned, size, found = -1, 0, {}
        for start in range(0, max(len(ids), 1), _VALUES_CHUNK):
            chunk = int8s(ids[start : start + _VALUES_CHUNK])
            for below, row_id, value in use.rows.query(
                use.values, (chunk, chunk, PAGE_BYTES - size)
            ):
                pruned = below
                if row_id is not None:
                    found[row_id] = value
                    size += len(value)
            if size >= PAGE_BYTES:
                break
        return cut_values(pruned, found, ids)

    def heartbeat(self, me: Member) -> Sequence[Member]:
        use = self._use()
        members = use.upkeep.heartbeat(me)
        use.hints.saw_members(alone=len(members) == 1)
        return members

    def listen(self, wake: Callable[[], None]) -> Closeable | None:
        use = self._use()
        if self._pooled and self._target.listen is None:
            return None
        return use.hints.listen(wake)


def _link(driver: PostgresqlDriver, stats: Stats, stack: ExitStack) -> Link[Session]:
    link: Link[Session] = Link(driver, stats)
    stack.callback(link.close)
    return link
