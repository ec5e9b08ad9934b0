"""What an append looks like on the wire, what a server's settings and its errors mean."""

from __future__ import annotations

import pymysql
import pytest

from datastore.dsn import Dsn, Host, to_target
from datastore.shim.backends.api import (
    Alarm,
    AuthState,
    BackendError,
    Batch,
    Corrupt,
    Full,
    Kinds,
    Unavailable,
)
from datastore.shim.backends.mysql_append import Append, quote
from datastore.shim.backends.mysql_errors import explain, explain_refusal, is_lost, was_sent
from datastore.shim.backends.mysql_facts import to_facts
from datastore.shim.backends.mysql_setup import to_names
from tests.support import batches

TARGET = to_target(Dsn("mysql://u@127.0.0.1/db"))
NAMES = to_names(TARGET)
BATCH = Batch(b"'" * 16, 7, 9, Kinds.NONE)
DURABLE = {
    "version": b"10.11.19-MariaDB", "max_allowed_packet": b"16777216", "log_bin": b"OFF",
    "sync_binlog": b"0", "innodb_flush_log_at_trx_commit": b"1", "read_only": b"OFF",
    "innodb_read_only": b"OFF", "wsrep_on": b"OFF", "binlog_format": b"MIXED",
}  # fmt: skip


def test_only_quote_and_backslash_are_escaped() -> None:
    assert quote(b"a'b\\c\0\xff") == b"_binary'a\\'b\\\\c\0\xff'"


def test_an_append_is_one_packet_whose_statements_are_counted() -> None:
    rows = [batches.put(9, sub, b";", b"a;b") for sub in range(3)]
    packets = Append(NAMES).build(BATCH._replace(rows=rows), 1 << 20)
    assert packets.others == []
    assert packets.last.startswith(b"START TRANSACTION;UPDATE `byre_head` SET")
    assert packets.last.endswith(b";COMMIT")
    assert packets.statements == 7


def test_all_that_a_batch_can_change_is_written_in_an_order_that_holds() -> None:
    batch = BATCH._replace(
        kinds=Kinds.LEASE | Kinds.ALARM | Kinds.AUTH,
        granted=[(9, 60), (3, 60)],
        dropped=[8, 3],
        alarms=[Alarm(2**64 - 1, 1)],
        auth=AuthState({(1, b"root"): b"x"}),
    )
    packets = Append(NAMES).build(batch, 1 << 20)
    text = packets.last
    order = [
        b"INSERT INTO `byre_commit`", b"DELETE FROM `byre_lease` WHERE id IN (3,8)",
        b"REPLACE INTO `byre_lease`", b"DELETE FROM `byre_alarm`", b"VALUES (-1,1)",
        b"DELETE FROM `byre_auth`", b"_binary'root'", b"COMMIT",
    ]  # fmt: skip
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    assert text.index(b"(3,60") < text.index(b"(9,60")
    assert packets.statements == 12


def test_rows_above_the_limit_go_ahead_in_packets_of_their_own() -> None:
    rows = [batches.put(9, sub, b"k", bytes(400)) for sub in range(5)]
    packets = Append(NAMES).build(BATCH._replace(rows=rows), 1000)
    assert len(packets.others) == 2
    assert b"COMMIT" not in b"".join(packets.others)
    assert packets.statements == 3
    whole = b"".join([*packets.others, packets.last])
    assert whole.count(bytes(400)) == 5
    assert whole.count(b"START TRANSACTION") == whole.count(b"UPDATE `byre_head`") == 1


def test_a_value_that_fits_into_no_packet_is_refused_before_anything_is_sent() -> None:
    row = batches.put(9, 0, b"k", bytes(2000))
    with pytest.raises(Full, match="a value of 2000 bytes does not fit: set max_allowed_packet"):
        Append(NAMES).build(BATCH._replace(rows=[row]), 1000)


@pytest.mark.parametrize(
    ("changed", "early", "weaknesses"),
    [
        ({}, True, ()),
        ({"log_bin": b"ON", "sync_binlog": b"1"}, False, ()),
        ({"log_bin": b"ON"}, False, ("sync_binlog=0",)),
        (
            {"innodb_flush_log_at_trx_commit": b"2"},
            False,
            ("innodb_flush_log_at_trx_commit=2",),
        ),
        ({"wsrep_on": b"ON"}, False, ()),
    ],
)
def test_how_durable_a_server_is(
    changed: dict[str, bytes], early: bool, weaknesses: tuple[str, ...]
) -> None:
    facts = to_facts("5.5.5-10.11.19-MariaDB", (DURABLE | changed).items())
    assert (facts.early, facts.weaknesses) == (early, weaknesses)
    assert facts.refusals == ()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"version": b"10.5.29-MariaDB"}, "MariaDB 10.5 is too old: byre needs 10.6 or newer"),
        ({"max_allowed_packet": b"1048576"}, "max_allowed_packet=1048576 is too small"),
        (
            {"log_bin": b"ON", "sync_binlog": b"1", "binlog_format": b"STATEMENT"},
            "set it to ROW or MIXED",
        ),
    ],
)
def test_what_byre_cannot_work_with(changed: dict[str, bytes], reason: str) -> None:
    facts = to_facts("5.5.5-10.11.19-MariaDB", (DURABLE | changed).items())
    assert len(facts.refusals) == 1
    assert reason in facts.refusals[0]


def test_an_old_mysql_is_refused() -> None:
    facts = to_facts("5.7.44", (DURABLE | {"version": b"5.7.44"}).items())
    assert facts.refusals == ("MySQL 5.7 is too old: byre needs 8.0 or newer",)


@pytest.mark.parametrize("value", [b"ON", b"1", b"NO_LOCK"])
@pytest.mark.parametrize("name", ["read_only", "innodb_read_only"])
def test_a_replica_is_known_by_either_setting(name: str, value: bytes) -> None:
    assert to_facts("8.4.0", (DURABLE | {name: value}).items()).replica


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (1114, "The table 'byre_log' is full", Full),
        (1021, "Disk full (/tmp); waiting", Full),
        (1026, 'Error writing file (errno: 28 "No space left on device")', Full),
        (1030, "Got error 28 from storage engine", Full),
        (1030, "Got error 127 from storage engine", Unavailable),
        (1146, "Table 'db.byre_log' doesn't exist", Corrupt),
        (1062, "Duplicate entry '8' for key 'PRIMARY'", Corrupt),
        (1034, "Incorrect key file", Corrupt),
        (1290, "running with the --read-only option", Unavailable),
        (1213, "Deadlock found", Unavailable),
        (2013, "Lost connection", Unavailable),
        (1053, "Server shutdown in progress", Unavailable),
    ],
)
def test_what_errors_mean_to_a_read(code: int, text: str, kind: type[BackendError]) -> None:
    assert type(explain(pymysql.OperationalError(code, text))) is kind


@pytest.mark.parametrize(
    ("error", "lost", "sent"),
    [
        (pymysql.InterfaceError(0, ""), True, False),
        (pymysql.OperationalError(2006, "gone away"), True, False),
        (pymysql.OperationalError(2013, "lost"), True, True),
        (pymysql.OperationalError(9001, "a proxy's"), True, True),
        (pymysql.InternalError("packet sequence number wrong"), True, True),
        (pymysql.OperationalError(1213, "deadlock"), False, True),
    ],
)
def test_which_errors_leave_the_outcome_open(error: Exception, lost: bool, sent: bool) -> None:
    assert is_lost(error) is lost
    assert was_sent(error, is_open=False) is sent
    assert was_sent(error, is_open=True), "a proxy said so"


def test_a_refusal_names_place_reason_and_advice() -> None:
    error = pymysql.OperationalError(1045, "Access denied for user 'u'@'h' (using password: YES)")
    told = explain_refusal(error, TARGET, Host("db.example", 3306))
    assert told == (
        "cannot connect to the database at db.example:3306, database db: access denied for user "
        "'u'@'h' (using password: YES); correct the password or the user, or let the user "
        "connect from this host"
    )
