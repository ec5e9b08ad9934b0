"""The log in MySQL or MariaDB, shared by any number of servers.

An append is one packet and one round trip (mysql_append.py); a look at the tail is one statement
when nothing is new (mysql_reads.py). Where another server has committed lately, a *turn* locks
the head in the round trip of the tail (mysql_turn.py). There are no hints: others poll. There is
one connection for each of appends; head and tail; rows; leases; pruning.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from datastore.dsn.target import Target
from datastore.shim.backends.api import (
    Appended,
    Batch,
    Commit,
    Head,
    Meta,
    Moved,
    RowId,
    Turn,
    Values,
)
from datastore.shim.backends.mysql_append import BEGIN, Append, write
from datastore.shim.backends.mysql_errors import Contended
from datastore.shim.backends.mysql_reads import MysqlReads
from datastore.shim.backends.mysql_session import MysqlDriver, Patience, Session
from datastore.shim.backends.mysql_setup import set_up, to_names, to_sync
from datastore.shim.backends.mysql_turn import MysqlTurn
from datastore.shim.backends.mysql_upkeep import Upkeep
from datastore.shim.backends.sql_backend import SqlBackend
from datastore.shim.backends.sql_link import Link, own_connection
from datastore.shim.backends.stats import Stats

_PATIENCE: Final = Patience()


class _Connections:
    """What there is while the store is open; each link connects when it is first used."""

    def __init__(self, target: Target, patience: Patience, stats: Stats) -> None:
        self.driver = MysqlDriver(target, patience, patience.idle)
        writing = MysqlDriver(target, patience, patience.silence)
        self.names = to_names(target)
        self.build = Append(self.names).build
        with ExitStack() as stack:
            self.appends = _link(writing, stats, stack)
            tails, rows = _link(self.driver, stats, stack), _link(self.driver, stats, stack)
            self.reads = MysqlReads(self.names, to_sync(target), tails, rows)
            self.upkeep = Upkeep(self.driver, self.names, stats)
            stack.callback(self.upkeep.close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close everything, waiting for calls under way."""
        self._stack.close()


class MysqlBackend(SqlBackend[_Connections]):
    """One server's access to a store in MySQL or MariaDB."""

    def __init__(self, target: Target, patience: Patience = _PATIENCE) -> None:
        super().__init__(target)
        self._patience = patience

    def open(self) -> Head:
        return self._open(
            lambda: _Connections(self._target, self._patience, self.stats), self._begin
        )

    def _begin(self, connections: _Connections) -> Head:
        set_up(connections.driver)
        return connections.reads.head()

    def append(self, batch: Batch) -> Appended | Moved:
        """Append in one round trip. Hot."""
        use = self._use()
        try:
            with use.appends.use() as session:
                return self._write(use, session, batch, BEGIN)
        except Contended:
            return self._moved(use)

    def _write(self, use: _Connections, session: Session, batch: Batch, begin: bytes) -> Appended:
        started = time.perf_counter()
        # A literal is at most twice as long as its bytes, and the rest has to fit as well.
        limit = session.facts.max_packet * 2 // 3
        head = write(session, use.build(batch, limit, begin))
        use.reads.note_durable(head.change)
        self.stats.append_seconds.observe(time.perf_counter() - started)
        self.stats.batch_rows.observe(len(batch.rows))
        return Appended(head)

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Give the turn; the lock is taken by the first `tail`, in its round trip."""
        use = self._use()

        def append_in(session: Session, batch: Batch) -> Appended | Moved:
            try:
                return self._write(use, session, batch, b"")
            except Contended:
                return self._moved(use)

        turn = MysqlTurn(use.appends, use.names.head, use.reads, append_in)
        try:
            yield turn
        finally:
            turn.end()

    @contextmanager
    def load(self) -> Iterator[tuple[Head, Commit, Iterator[Sequence[Meta]]]]:
        use = self._use()
        with own_connection(use.driver) as session, use.reads.load(session) as loaded:
            yield loaded

    def values(self, ids: Sequence[RowId]) -> Values:
        return self._use().reads.values(ids)


def _link(driver: MysqlDriver, stats: Stats, stack: ExitStack) -> Link[Session]:
    link: Link[Session] = Link(driver, stats)
    stack.callback(link.close)
    return link
