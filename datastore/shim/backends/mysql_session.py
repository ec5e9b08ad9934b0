"""Connections to MySQL and MariaDB: how they are made, what is set in them, how long they wait."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import pymysql
from pymysql.constants import CLIENT, SERVER_STATUS

from datastore.dsn.target import Host, Target, Tls, TlsMode
from datastore.errors import PasswordUnavailable
from datastore.shim.backends.api import BackendError, NotReady, Unreachable
from datastore.shim.backends.mysql_errors import explain, explain_refusal
from datastore.shim.backends.mysql_facts import FACTS, Facts, to_facts

_POLLED: Final = select.POLLIN | select.POLLERR | select.POLLHUP
_SQL_MODE: Final = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
"""Without NO_BACKSLASH_ESCAPES and ANSI_QUOTES, on which literals depend."""

_KEEPALIVE: Final = {
    socket.TCP_KEEPIDLE: 15,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 15_000,
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long who waits for whom, in seconds.

    Attributes:
        reply: For an answer of the server, before the socket is closed.
        lock: For a lock, before the server refuses; less than `reply`, so that the outcome is
            known.
        silence: The server ends the session of a client that has said nothing for this long, and
            with it the locks of one that hangs in a turn (log.md A8).
        idle: The same where no locks are held.
    """

    reply: float = 5.0
    lock: int = 2
    silence: int = 10
    idle: int = 60


class Result(NamedTuple):
    """What one statement gave: rows changed or found, and the rows."""

    changed: int
    rows: Sequence[tuple[Any, ...]]


class Session:
    """A connection that is set up; one thread at a time."""

    def __init__(
        self, connection: pymysql.Connection[Any], descriptor: int, facts: Facts, idle: float
    ) -> None:
        self.connection = connection
        self.facts = facts
        self.answered = 0
        """Statements of the last packet that were answered without error."""
        self._cursor = connection.cursor()
        self._idle = idle
        self._used_at = time.monotonic()
        self._poller = select.poll()
        self._poller.register(descriptor, _POLLED)

    def run(self, packet: bytes | str) -> list[Result]:
        """Send statements, separated by semicolons, as one packet; return what each gave. Hot.

        The server runs them in order and stops at the first error, which is raised as it is.
        """
        cursor = self._cursor
        self.answered = 0
        cursor.execute(cast("str", packet))
        results = [Result(cursor.rowcount, cursor.fetchall())]
        self.answered = 1
        while cursor.nextset():
            results.append(Result(cursor.rowcount, cursor.fetchall()))
            self.answered += 1
        self._used_at = time.monotonic()
        return results

    @property
    def is_open(self) -> bool:
        """Whether neither end has closed the connection, as far as this one knows."""
        return bool(self.connection.open)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction was left open."""
        status: int = self.connection.server_status  # type: ignore[attr-defined]
        return bool(status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    def is_usable(self) -> bool:
        """Return whether it may take another packet; costs no round trip. Hot.

        What can be read now is the farewell of a server that has closed the connection. One that
        will do so in a moment is not used either: nobody could tell what became of a packet that
        crosses it.
        """
        if not self.connection.open or self.in_transaction:
            return False
        if time.monotonic() - self._used_at > self._idle:
            return False
        return not self._poller.poll(0)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        if self.connection.open:
            with suppress(pymysql.Error, OSError):
                self.connection.close()


class MysqlDriver:
    """Makes sessions for one target; `silence` is after how many idle seconds they end."""

    errors: type[Exception] = pymysql.Error

    def __init__(self, target: Target, patience: Patience, silence: int) -> None:
        self.target = target
        self.patience = patience
        self._silence = silence

    def connect(self) -> Session:
        """Return a session that is set up, on the first host that can write.

        Raises:
            NotReady: the reason, and what to do about it.
        """
        return self.connect_to(self.target.database)

    def connect_to(self, database: str | None, reply: float | None = None) -> Session:
        """As `connect`, with another database or none, and another patience for replies."""
        target = self.target
        refusal: NotReady | None = None
        for host in target.hosts:
            try:
                session = self._connect(host, database, reply or self.patience.reply)
            except PasswordUnavailable as error:
                raise NotReady(str(error)) from error
            except (pymysql.Error, OSError, ValueError, RuntimeError) as error:
                refusal = Unreachable(explain_refusal(error, target, host))
                refusal.__cause__ = error
                continue
            if not session.facts.replica or host is target.hosts[-1]:
                return session
            session.close()
        assert refusal is not None
        raise refusal

    def _connect(self, host: Host, database: str | None, reply: float) -> Session:
        target = self.target
        password = target.password.get().encode() if target.password else b""
        context = None if host.is_socket else make_context(target.tls)
        connection: pymysql.Connection[Any] = pymysql.connect(
            user=target.user or None,
            password=password,
            host=target.tls.server_name or ("localhost" if host.is_socket else host.name),
            database=database,
            charset="utf8mb4",
            autocommit=True,
            client_flag=CLIENT.MULTI_STATEMENTS,
            connect_timeout=target.connect_seconds,
            read_timeout=reply,
            write_timeout=reply,
            program_name="byre",
            defer_connect=True,
            ssl=context,
            ssl_disabled=host.is_socket or target.tls.mode is TlsMode.DISABLE,
        )
        sock = open_socket(host, target.connect_seconds)
        descriptor = sock.fileno()
        try:
            connection.connect(sock)
            facts = self._set_up(connection)
        except BaseException:
            sock.close()
            _abandon(connection)
            raise
        return Session(connection, descriptor, facts, self._silence - 1)

    def _set_up(self, connection: pymysql.Connection[Any]) -> Facts:
        """Pin what the session depends on, whatever the server's defaults (log.md A12)."""
        greeting = connection.get_server_info()  # type: ignore[no-untyped-call] # from the stubs
        lock, reply = self.patience.lock, self.patience.reply + 5
        settings = {
            "sql_mode": f"'{_SQL_MODE}'",
            "time_zone": "'+00:00'",
            "wait_timeout": self._silence,
            "innodb_lock_wait_timeout": lock,
            "lock_wait_timeout": lock,
            "completion_type": 0,
            # The driver asks for it only where the greeting, before init_connect, had it off.
            "autocommit": 1,
            "sql_select_limit": "DEFAULT",
            "sql_safe_updates": 0,
        }
        if "MariaDB" in greeting:
            settings["max_statement_time"] = 0 if self._holds_locks else reply
        else:
            settings["max_execution_time"] = int(reply * 1000)
            settings["information_schema_stats_expiry"] = 0
        assignments = ", ".join(f"SESSION {name}={value}" for name, value in settings.items())
        with connection.cursor() as cursor:
            # Bytes go out and come in as they are: no collation, charset or padding.
            cursor.execute(
                "SET NAMES binary; "
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; "
                f"SET {assignments}"
            )
            while cursor.nextset():
                pass
            cursor.execute(FACTS)
            facts = to_facts(greeting, cursor.fetchall())
            if facts.galera:
                # A read waits for what other nodes have committed (log.md A13).
                cursor.execute("SET SESSION wsrep_sync_wait=1")
        return facts

    @property
    def _holds_locks(self) -> bool:
        """Whether this is the driver of appends, which are never cancelled (log.md A8)."""
        return self._silence == self.patience.silence

    def is_usable(self, connection: Session) -> bool:
        """See `Session.is_usable`. Hot."""
        return connection.is_usable()

    def close(self, connection: Session) -> None:
        """Close the socket; a statement under way goes on in the server."""
        connection.close()

    def query(
        self, connection: Session, statement: str, values: Any = None
    ) -> Sequence[tuple[Any, ...]]:
        """Run one statement, whose values are numbers; return its rows."""
        return connection.run(statement if values is None else statement % values)[-1].rows

    def explain(self, error: Exception) -> BackendError:
        """Return what an error means to a read."""
        return explain(error)


def open_socket(host: Host, seconds: float) -> socket.socket:
    """Connect to a host; a peer that vanishes is noticed within about 30 s."""
    if host.is_socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(seconds)
            sock.connect(host.name)
        except BaseException:
            sock.close()
            raise
        return sock
    sock = socket.create_connection((host.name, host.port), seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock


def make_context(tls: Tls) -> ssl.SSLContext | None:
    """Return how to protect a connection; None leaves it to the driver, which prefers TLS."""
    if tls.mode is TlsMode.DISABLE:
        return None
    if tls.mode in {TlsMode.ALLOW, TlsMode.PREFER} and tls.cert is None:
        return None
    if tls.mode.verifies:
        context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
        context.check_hostname = tls.mode is TlsMode.VERIFY_FULL
        # The certificates that servers make for themselves lack a key identifier.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def _abandon(connection: pymysql.Connection[Any]) -> None:
    with suppress(pymysql.Error, OSError):
        connection.close()
