"""A turn: the lock, the tail beneath it and the append, in two round trips.

The lock belongs to the transaction, so it ends with the append's commit, with the session of a
client that died, and after `IDLE_SECONDS` with that of one that fell silent. It orders writers;
what keeps the log right is the compare of the append (log.md A9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from datastore.shim.backends.api import Appended, Batch, Commit, Moved, Tail, Unavailable
from datastore.shim.backends.postgresql_errors import Contended, explain, explain_append
from datastore.shim.backends.postgresql_session import BEGIN, SET_LOCAL, Session
from datastore.shim.backends.sql_link import Link
from datastore.shim.backends.sql_reads import read_tail, tail_values

_LOCK = "SELECT pg_advisory_xact_lock(%s)"


@dataclass(slots=True, eq=False)
class PostgresqlTurn:
    """One turn; it has the link to itself from the first `tail` until it ends.

    Attributes:
        link: Of appends.
        tail_statement: The statement of the tail.
        key: Of the advisory lock.
        build: Makes an append's statement and values.
        oldest: Returns the oldest commit that is kept, by another link.
        settle: Says what an append's rows mean.
    """

    link: Link[Session]
    tail_statement: str
    key: int
    build: Callable[[Batch], tuple[str, list[Any]]]
    oldest: Callable[[], int]
    settle: Callable[[Batch, Sequence[Any]], Appended | Moved]
    _session: Session | None = None
    _held: ExitStack = field(default_factory=ExitStack)

    def tail(self, position: Commit, limit: int) -> Tail:
        """Read the tail; the first call takes the lock before it."""
        values = tail_values(position, limit)
        try:
            found = self._go_on(values) if self._session else self._begin(values)
        except psycopg.Error as error:
            if error.sqlstate == "55P03":
                raise Unavailable("another server has had the turn for too long") from error
            raise explain(error) from error
        return read_tail(position, found, self.oldest)

    def append(self, batch: Batch) -> Appended | Moved:
        """Append and give the turn up, in one round trip."""
        session = self._session
        if session is None:
            raise Unavailable("the turn has ended")
        statement, values = self.build(batch)
        found: Sequence[Any] = ()
        try:
            with session.pipeline():
                cursor = session.execute(statement, values, binary=True)
                session.execute("COMMIT")
            found = cursor.fetchall()
        except psycopg.Error as error:
            session.read_only_by_now = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
            explained = explain_append(error, session)
            if not isinstance(explained, Contended):
                raise explained from error
        finally:
            # What follows, such as finding out about a reply that was lost, needs the link.
            self.end()
        return self.settle(batch, found)

    def end(self) -> None:
        """Give the turn up; a session that does not answer is dropped. Idempotent."""
        session, self._session = self._session, None
        if session is not None and session.pgconn.transaction_status in {
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        }:
            with suppress(psycopg.Error):
                session.execute("ROLLBACK")
        self._held.close()

    def _begin(self, values: dict[str, int]) -> Sequence[Any]:
        session = self._session = self._held.enter_context(self.link.use())
        with session.pipeline():
            session.execute(BEGIN)
            session.execute(SET_LOCAL)
            session.execute(_LOCK, (self.key,))
            cursor = session.execute(self.tail_statement, values, binary=True)
        return cursor.fetchall()

    def _go_on(self, values: dict[str, int]) -> Sequence[Any]:
        assert self._session is not None
        return self._session.execute(self.tail_statement, values, binary=True).fetchall()
