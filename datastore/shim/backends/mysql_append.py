"""The append on MySQL and MariaDB: statements in one packet, so that no lock outlives it.

The UPDATE of the head is the compare. What follows depends on a variable made from the number of
rows that it changed: a loser's next statement inserts NULL where none may be, the server stops
there, and what is left open has changed nothing and holds no lock. This was measured beside
joining each INSERT with the head (log.md A8): see decisions/0001-guard-the-packet.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import pymysql

from datastore.shim.backends.api import Batch, Full, Head, Kinds, OutcomeUnknown, Row, Unavailable
from datastore.shim.backends.int64 import to_signed, to_unsigned
from datastore.shim.backends.limits import SCHEMA_VERSION
from datastore.shim.backends.mysql_errors import (
    CONTENDED,
    GUARD,
    Contended,
    explain,
    is_lost,
    to_code,
    to_line,
    was_sent,
)
from datastore.shim.backends.mysql_session import Session
from datastore.shim.backends.sql_reads import Names

BEGIN: Final = b"START TRANSACTION;"
NOW: Final = b"UTC_TIMESTAMP(6)"

_FRAME_STATEMENTS: Final = 5
_END_STATEMENTS: Final = 2
_BESIDE_KEYS: Final = ~int(Kinds.LOG)
_ROWS_PER_PACKET: Final = 20_000
"""A packet of small rows must not take longer than a reply is waited for."""

_HEAD = """UPDATE {head} SET {change}={change}+1,revision=%%d,compacted=COALESCE(%%b,compacted)
WHERE id=1 AND {change}=%%d AND schema_version=%d%%b;
SET @won=IF(ROW_COUNT()=1,0,NULL);
INSERT INTO {commit} VALUES (@won+%%d,%%d,%%b,%%d,UTC_TIMESTAMP(6));"""
_BASE = " AND (SELECT batch FROM {commit} WHERE {change}=%d)=%b"
_LOG = "INSERT INTO {log} VALUES "
_GRANT = "REPLACE INTO {lease} (id,ttl,deadline,expired) VALUES "
_END = (
    "SELECT CONCAT_WS(' ',{change},revision,compacted,pruned,cluster_id,schema_version) "
    "FROM {head} WHERE id=1;COMMIT"
)


def quote(value: bytes) -> bytes:
    """Return bytes as a literal; nothing but a quote and a backslash means something in it."""
    return b"_binary'" + value.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"


def numbers(values: Sequence[int]) -> bytes:
    """Return what goes between the parentheses of IN; never empty."""
    return ",".join(map(str, values)).encode() or b"NULL"


class Packets(NamedTuple):
    """An append as it is sent."""

    others: Sequence[bytes]
    last: bytes
    """The one with the COMMIT; as a rule there is no other."""
    statements: int
    """How many `last` has."""


class Append:
    """The packets of appends in the names of one store."""

    def __init__(self, names: Names) -> None:
        fill = names.fill
        self._head = (fill(_HEAD) % SCHEMA_VERSION).encode()
        self._base = fill(_BASE).encode()
        self._log = fill(_LOG).encode()
        self._drop = fill("DELETE FROM {lease} WHERE id IN (").encode()
        self._grant = fill(_GRANT).encode()
        self._no_alarm = fill("DELETE FROM {alarm};").encode()
        self._alarm = fill("INSERT INTO {alarm} VALUES ").encode()
        self._no_auth = fill("DELETE FROM {auth};").encode()
        self._auth = fill("INSERT INTO {auth} VALUES ").encode()
        self._end = fill(_END).encode()

    def build(self, batch: Batch, limit: int, begin: bytes = BEGIN) -> Packets:
        """Return the packets that append a batch and commit it. Hot.

        Args:
            batch: What to append.
            limit: Bytes of a packet. More are needed only for a transaction above it.
            begin: What comes before; nothing where a transaction is open.

        Raises:
            Full: A single row is above the limit.
        """
        kinds = int(batch.kinds)  # operations on an IntFlag cost microseconds
        compacted = b"NULL" if batch.compacted is None else b"%d" % batch.compacted
        base = b"" if batch.base is None else self._base % (batch.expected, quote(batch.base))
        packet = [
            begin,
            self._head
            % (
                batch.revision, compacted, batch.expected, base,
                batch.expected + 1, batch.revision, quote(batch.batch), kinds,
            ),
        ]  # fmt: skip
        statements = _FRAME_STATEMENTS + bool(begin)
        others = []
        if batch.rows:
            *full, last = self._cut(batch.rows, limit)
            for rows in full:
                packet += (self._log, b",".join(rows))
                others.append(b"".join(packet))
                packet, statements = [], _END_STATEMENTS
            packet += (self._log, b",".join(last), b";")
            statements += 1
        if kinds & _BESIDE_KEYS:
            for statement in self._state(batch):
                packet.append(statement)
                statements += 1
        packet.append(self._end)
        return Packets(others, b"".join(packet), statements)

    def _cut(self, rows: Sequence[Row], limit: int) -> Iterator[list[bytes]]:
        """Give the rows as literals, in parts that fit into a packet. Hot."""
        part: list[bytes] = []
        size = 0
        for (row_id, create_revision, version, lease, key), value in rows:
            literal = b"(%d,%d,%d,%d,%b,%b)" % (
                row_id, create_revision, version, lease,
                quote(key), b"NULL" if value is None else quote(value),
            )  # fmt: skip
            size += len(literal) + 1
            if part and (size > limit or len(part) >= _ROWS_PER_PACKET):
                yield part
                part, size = [], len(literal) + 1
            if size > limit:
                raise Full(
                    f"a value of {len(value or b'')} bytes does not fit: set max_allowed_packet "
                    "of the database higher"
                )
            part.append(literal)
        yield part

    def _state(self, batch: Batch) -> Iterator[bytes]:
        """Give the statements for what a batch changes besides keys."""
        # Dropped first: one batch may revoke a lease and grant its id again. Locks are taken in
        # the order of ids, as keepalives do, or the two could wait for each other.
        if batch.dropped:
            yield self._drop + numbers(sorted(batch.dropped)) + b");"
        if batch.granted:
            yield b"%b%b;" % (
                self._grant,
                b",".join(
                    b"(%d,%d,%b+INTERVAL %d SECOND,0)" % (lease, ttl, NOW, ttl)
                    for lease, ttl in sorted(dict(batch.granted).items())
                ),
            )
        if batch.alarms is not None:
            yield self._no_alarm
            alarms = [b"(%d,%d)" % (to_signed(a.member), a.kind) for a in batch.alarms]
            if alarms:
                yield b"%b%b;" % (self._alarm, b",".join(alarms))
        if batch.auth is not None:
            yield self._no_auth
            auth = [
                b"(%d,%b,%b)" % (kind, quote(name), quote(body))
                for (kind, name), body in batch.auth.rows.items()
            ]
            if auth:
                yield b"%b%b;" % (self._auth, b",".join(auth))


def write(session: Session, packets: Packets) -> Head:
    """Send the packets of an append and return the head that it made. Hot.

    Raises:
        Contended: Another commit was first, or in the way. Nothing was written.
        OutcomeUnknown: The connection broke after COMMIT was sent, or COMMIT failed.
        BackendError: Nothing was written, and why.
    """
    try:
        for packet in packets.others:
            session.run(packet)
    except pymysql.Error as error:
        raise _not_written(session, error) from error
    try:
        results = session.run(packets.last)
    except pymysql.Error as error:
        if is_lost(error):
            sent = was_sent(error, is_open=session.is_open)
            session.close()
            if sent:
                raise OutcomeUnknown(f"a commit was not answered: {to_line(error)}") from error
            raise Unavailable(f"a commit could not be sent: {to_line(error)}") from error
        if session.answered == packets.statements - 1 and to_code(error) not in CONTENDED:
            session.close()
            raise OutcomeUnknown(f"a commit failed: {to_line(error)}") from error
        raise _not_written(session, error) from error
    found = results[-2].rows
    change, revision, compacted, pruned, cluster, version = map(int, found[0][0].split())
    return Head(change, revision, compacted, pruned, to_unsigned(cluster), version)


def _not_written(session: Session, error: pymysql.Error) -> Exception:
    """End a transaction that has not reached its COMMIT; return what the error means."""
    if is_lost(error):
        # The server ends the transaction when it sees that the connection is gone.
        session.close()
        return Unavailable(f"a commit was cut short: {to_line(error)}")
    # A timeout of a lock leaves the transaction open (log.md A12).
    try:
        session.run(b"ROLLBACK")
    except pymysql.Error:
        session.close()
    if to_code(error) == GUARD or to_code(error) in CONTENDED:
        return Contended(to_line(error))
    return explain(error)
