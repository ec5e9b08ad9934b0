"""Connections to PostgreSQL: how they are made, what their sessions have set, how long they wait.

Two kinds. A *direct* session keeps its settings and may prepare statements. One through a pooler
in transaction mode (PgBouncer) is another session at each transaction: nothing may be left in it,
so settings travel with each transaction, in the same round trip. Which of the two a connection
is, is seen by the process id that the server gives: a pooler makes one up for its clients.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg.abc import PQGen
from psycopg.generators import send
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.waiting import Ready, Wait

from datastore.dsn.target import Target
from datastore.errors import PasswordUnavailable
from datastore.shim.backends.api import BackendError, NotReady, Unreachable
from datastore.shim.backends.postgresql_arrays import register
from datastore.shim.backends.postgresql_errors import Silence, explain
from datastore.shim.backends.postgresql_refusals import explain_refusal

OLDEST_VERSION: Final = 14
CLIENT_SECONDS: Final = 5.0
"""How long a server may be silent; then the socket is closed, never the statement cancelled:
a cancel while a synchronous standby is waited for commits (log.md A8)."""
IDLE_SECONDS: Final = 2.0
"""A transaction of a client that has gone silent ends after this, and its turn with it."""
LOCK_SECONDS: Final = 3.0
"""How long a lock is waited for: until a silent holder has been ended."""
STATEMENT_SECONDS: Final = 10.0
"""When the server ends a statement whose client may be gone."""

_SETTINGS: Final = {
    "statement_timeout": f"'{STATEMENT_SECONDS * 1000:.0f}ms'",
    "lock_timeout": f"'{LOCK_SECONDS * 1000:.0f}ms'",
    "idle_in_transaction_session_timeout": f"'{IDLE_SECONDS * 1000:.0f}ms'",
    # A reply means that the commit is on disk, whatever the database is set to.
    "synchronous_commit": (
        "CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' "
        "ELSE current_setting('synchronous_commit') END"
    ),
    # Compiling a plan takes longer than any statement of ours.
    "jit": "'off'",
    # All of them go by a key. A table that looks small when a statement is prepared may be full
    # of versions later, which somebody's long snapshot keeps (log.md A11).
    "enable_seqscan": "'off'",
}
SET_SESSION: Final = "SELECT set_config('default_transaction_isolation', 'read committed', false)"
BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

_READABLE = select.POLLIN | select.POLLERR | select.POLLHUP
_EVENTS = {
    Wait.R: _READABLE,
    Wait.W: select.POLLOUT | select.POLLERR | select.POLLHUP,
    Wait.RW: _READABLE | select.POLLOUT,
}


def _set(*, local: bool) -> str:
    scope = "true" if local else "false"
    return ", ".join(f"set_config('{n}', {v}, {scope})" for n, v in _SETTINGS.items())


SET_LOCAL: Final = f"SELECT {_set(local=True)}"


class _Pipeline(psycopg.Pipeline):
    """A pipeline that ends with its Sync.

    That of psycopg sends a Flush behind it. A server that is asked to flush stops watching for
    clients that fall silent in a transaction, and `IDLE_SECONDS` would never come.
    """

    def _exit_gen(self) -> PQGen[None]:
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
        finally:
            yield from send(self.pgconn)
            yield from self._fetch_gen(flush=False)


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection that waits no longer than `limit` seconds for a sign of life."""

    limit: float = CLIENT_SECONDS
    pooled: bool = True
    """Whether transactions may be run by different sessions of the server."""
    read_only_by_now: bool = False
    """Whether a write was refused: another connection may lead to a server that can be written."""
    poller: select.poll
    asking: psycopg.Cursor[tuple[Any, ...]]
    """A cursor for whole answers: a new one for each question costs a fifth of it."""

    @contextmanager
    def pipeline(self) -> Iterator[psycopg.Pipeline]:
        """Send statements together, in one round trip."""
        self._pipeline = _Pipeline(self)
        try:
            with self._pipeline as pipeline:
                yield pipeline
        finally:
            self._pipeline = None

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server as psycopg does, but not for ever, and never cancel. Hot."""
        if timeout is not None:  # to listen
            return super().wait(gen, interval, timeout)
        limit = self.limit * 1000
        poller, descriptor = self.poller, self.fileno()
        try:
            wanted = next(gen)
            while True:
                poller.modify(descriptor, _EVENTS[wanted])
                ready = 0
                for _, event in poller.poll(limit):
                    ready |= Ready.W if event & select.POLLOUT else 0
                    ready |= Ready.R if event & ~select.POLLOUT else 0
                if not ready:
                    break
                wanted = gen.send(Ready(ready))
        except StopIteration as ended:
            return ended.value
        self.pgconn.finish()
        silence = Silence("no answer in time")
        with suppress(psycopg.Error, StopIteration):
            gen.throw(silence)
        raise silence


class PostgresqlDriver:
    """Makes sessions for one target."""

    errors: type[Exception] = psycopg.Error

    def __init__(self, target: Target) -> None:
        self.target = target

    def connect(self) -> Session:
        """Return a session that is set up; raises NotReady with the reason."""
        return self.connect_to(self.target.database)

    def connect_to(self, database: str) -> Session:
        """Return a session of a database of the target's server."""
        try:
            session = Session.connect(
                **to_parameters(self.target, database), autocommit=True, prepare_threshold=None
            )
        except PasswordUnavailable as error:
            raise NotReady(str(error)) from error
        except (psycopg.Error, UnicodeError) as error:
            raise Unreachable(explain_refusal(error, self.target)) from error
        try:
            self._set_up(session)
        except psycopg.Error as error:
            session.close()
            raise Unreachable(explain_refusal(error, self.target)) from error
        except BaseException:
            session.close()
            raise
        return session

    def _set_up(self, session: Session) -> None:
        version = session.info.server_version
        if version < OLDEST_VERSION * 10_000:
            raise NotReady(
                f"{self.target.place} runs PostgreSQL {version // 10_000}: byre needs "
                f"{OLDEST_VERSION} or newer"
            )
        register(session)
        session.poller = select.poll()
        session.poller.register(session.fileno(), _READABLE)
        session.asking = session.cursor(binary=True)
        found = session.execute("SELECT pg_backend_pid()").fetchone()
        assert found is not None
        session.pooled = found[0] != session.info.backend_pid
        if not session.pooled:
            session.execute(f"{SET_SESSION}, {_set(local=False)}")
            session.prepare_threshold = 1

    def is_usable(self, connection: Session) -> bool:
        """Return whether a session is between transactions and the server still there. Hot."""
        server = connection.pgconn
        try:
            if server.transaction_status != TransactionStatus.IDLE or connection.read_only_by_now:
                return False
            # What is there to read now is a notice, a change of settings, or the end.
            connection.poller.modify(connection.fileno(), _READABLE)
            for _ in range(3):
                if not connection.poller.poll(0):
                    return True
                server.consume_input()
        except psycopg.Error:
            return False
        return server.status == ConnStatus.OK

    def close(self, connection: Session) -> None:
        """Close the socket; a statement under way goes on in the server."""
        connection.close()

    def query(
        self, connection: Session, statement: str, values: Any = None
    ) -> Sequence[tuple[Any, ...]]:
        """Run one statement as a transaction, in one round trip; rows come in binary. Hot."""
        try:
            if not connection.pooled:
                cursor = connection.asking.execute(statement, values)
            else:
                with connection.pipeline():
                    connection.execute(BEGIN)
                    connection.execute(SET_LOCAL)
                    cursor = connection.execute(statement, values, binary=True)
                    connection.execute("COMMIT")
        except psycopg.errors.ReadOnlySqlTransaction:
            connection.read_only_by_now = True
            raise
        # `cursor.description` would cost more than all else here.
        result = cursor.pgresult
        return cursor.fetchall() if result is not None and result.nfields else ()

    def explain(self, error: Exception) -> BackendError:
        """Return what an error means to a read."""
        return explain(error)


def to_parameters(target: Target, database: str) -> dict[str, Any]:
    """Return what libpq is told. The password is asked for now.

    Raises:
        PasswordUnavailable: there is none to be had.
    """
    tls = target.tls
    parameters: dict[str, Any] = {
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": int(CLIENT_SECONDS * 1000),
        "application_name": "byre",
        "client_encoding": "UTF8",
        **target.options,
        "host": ",".join(host.name for host in target.hosts),
        "port": ",".join(str(host.port) for host in target.hosts),
        "dbname": database,
        "user": target.user,
        "password": target.password.get() if target.password else "",
        # libpq takes one second for no limit at all.
        "connect_timeout": max(2, round(target.connect_seconds)),
        "target_session_attrs": target.session_attrs,
        "sslmode": str(tls.mode),
        "sslrootcert": str(tls.ca or ("system" if tls.mode.verifies else "")),
        "sslcert": str(tls.cert or ""),
        "sslkey": str(tls.key or ""),
    }
    return {name: value for name, value in parameters.items() if value != ""}
