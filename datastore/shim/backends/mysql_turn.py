"""A turn: the lock on the head, the tail beneath it and the append, in two round trips.

The lock is that of the head's row. It ends with the append's commit, with the session of a
client that died, and after `Patience.silence` with that of one that hangs. It orders writers;
what keeps the log right is the compare of the append (log.md A9).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

import pymysql

from datastore.shim.backends.api import Appended, Batch, Commit, Moved, Tail, Unavailable
from datastore.shim.backends.mysql_errors import LOCK_TIMEOUT, explain, to_code
from datastore.shim.backends.mysql_reads import MysqlReads
from datastore.shim.backends.mysql_session import Session
from datastore.shim.backends.sql_link import Link

_LOCK: Final = "START TRANSACTION; SELECT id FROM {head} WHERE id = 1 FOR UPDATE; "


@dataclass(slots=True, eq=False)
class MysqlTurn:
    """One turn; it has the link to itself from the first `tail` until it ends.

    Attributes:
        link: Of appends.
        head: The name of the head's table.
        reads: Whose statements read the tail.
        append_in: Appends a batch inside the open transaction of a session.
    """

    link: Link[Session]
    head: str
    reads: MysqlReads
    append_in: Callable[[Session, Batch], Appended | Moved]
    _session: Session | None = None
    _held: ExitStack = field(default_factory=ExitStack)

    def tail(self, position: Commit, limit: int) -> Tail:
        """Read the tail; the first call takes the lock before it."""
        lock = ""
        if self._session is None:
            self._session = self._held.enter_context(self.link.use())
            lock = _LOCK.format(head=self.head)
        session, reads = self._session, self.reads
        packet = (
            f"{lock}{reads.commits_statement(position, limit)}; "
            f"{reads.rows_statement(position, limit)}"
        )
        try:
            *_, commits, page = session.run(packet)
            tail = reads.finish_tail(session.run, position, commits, limit, page)
        except pymysql.Error as error:
            if to_code(error) == LOCK_TIMEOUT:
                raise Unavailable("another server has had the turn for too long") from error
            raise explain(error) from error
        if tail.commits:
            reads.cover(tail.commits[-1].change)
        return tail

    def append(self, batch: Batch) -> Appended | Moved:
        """Append and give the turn up, in one round trip."""
        if self._session is None:
            raise Unavailable("the turn has ended")
        try:
            return self.append_in(self._session, batch)
        finally:
            # What follows, such as finding out about a reply that was lost, needs the link.
            self.end()

    def end(self) -> None:
        """Give the turn up; a session that does not answer is dropped. Idempotent."""
        session, self._session = self._session, None
        if session is not None and session.is_open and session.in_transaction:
            with suppress(pymysql.Error):
                session.run("ROLLBACK")
        self._held.close()
