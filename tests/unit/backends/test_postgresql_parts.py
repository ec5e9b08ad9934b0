"""What PostgreSQL's backend says and sends, without a server."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.array import ListBinaryDumper

from datastore.dsn import Dsn, Host, Tls, TlsMode, to_target
from datastore.dsn.password import FixedPassword
from datastore.shim.backends.api import (
    PAGE_BYTES,
    Commit,
    Corrupt,
    Diverged,
    Full,
    Head,
    Kinds,
    NotReady,
    Unavailable,
    Values,
    cut_values,
)
from datastore.shim.backends.postgresql_arrays import byteas, int8s
from datastore.shim.backends.postgresql_errors import explain, to_line
from datastore.shim.backends.postgresql_hints import to_channel
from datastore.shim.backends.postgresql_refusals import explain_refusal
from datastore.shim.backends.postgresql_session import to_parameters
from datastore.shim.backends.postgresql_setup import to_lock_key, to_names
from datastore.shim.backends.sql_link import Link
from datastore.shim.backends.sql_reads import read_tail
from datastore.shim.backends.stats import Stats

TARGET = to_target(Dsn("postgresql://u@db.example.com/k"))
numbers = st.integers(-(1 << 63), (1 << 63) - 1)


def by_the_driver(values: list[object]) -> bytes:
    dumper = ListBinaryDumper(list, Transformer()).upgrade(values, PyFormat.BINARY)
    found = dumper.dump(values)
    assert found is not None
    return bytes(found)


@given(st.lists(st.integers(1 << 40, (1 << 63) - 1), min_size=1))
def test_arrays_of_numbers_are_what_the_driver_sends(values: list[int]) -> None:
    assert int8s(values) == by_the_driver(list(values))


@given(st.lists(st.none() | st.binary(), min_size=1).filter(any))
def test_arrays_of_bytes_are_what_the_driver_sends(values: list[bytes | None]) -> None:
    assert byteas(values) == by_the_driver(list(values))


def test_empty_arrays_have_no_dimension() -> None:
    assert int8s([]) == b"\0\0\0\0\0\0\0\0\0\0\0\x14"
    assert byteas([]) == b"\0\0\0\0\0\0\0\0\0\0\0\x11"


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.DiskFull("x"), Full),
        (psycopg.errors.UndefinedTable("x"), Corrupt),
        (psycopg.errors.DataCorrupted("x"), Corrupt),
        (psycopg.errors.ReadOnlySqlTransaction("x"), Unavailable),
        (psycopg.errors.TooManyConnections("x"), Unavailable),
        (psycopg.errors.AdminShutdown("x"), Unavailable),
        (psycopg.OperationalError("the connection is lost"), Unavailable),
    ],
)
def test_errors_are_told_apart_by_their_state(error: psycopg.Error, kind: type[Exception]) -> None:
    assert type(explain(error)) is kind


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            (
                'connection failed: connection to server at "10.0.0.1", port 5432 failed: '
                "Connection refused\n\tIs the server running on that host?"
            ),
            "Connection refused",
        ),
        (
            (
                'connection to server on socket "/run/.s.PGSQL.5432" failed: '
                'FATAL:  role "u" does not exist'
            ),
            'role "u" does not exist',
        ),
        ("consuming input failed: server closed the connection", "consuming input failed: "),
        ("", "OperationalError"),
    ],
)
def test_a_message_is_one_line_without_what_libpq_puts_in_front(text: str, line: str) -> None:
    found = to_line(psycopg.OperationalError(text))
    assert found.startswith(line)
    assert "\n" not in found


def test_a_refusal_says_where_why_and_what_to_do() -> None:
    error = psycopg.OperationalError("connection timeout expired")
    assert explain_refusal(error, TARGET) == (
        "cannot connect to PostgreSQL at db.example.com:5432, database k: connection timeout "
        "expired; is the host right, and does no firewall stand between?"
    )


# -- parameters ---------------------------------------------------------------------------------


def test_parameters_name_all_hosts_and_leave_out_what_was_not_said() -> None:
    hosts = (Host("a.example.com", 5432), Host("2001:db8::1", 5433))
    found = to_parameters(replace(TARGET, hosts=hosts), "other")
    assert (found["host"], found["port"]) == ("a.example.com,2001:db8::1", "5432,5433")
    assert found["dbname"] == "other"
    assert found["tcp_user_timeout"] > 0
    assert not {"password", "sslcert", "sslkey", "sslrootcert"} & set(found)


def test_a_mode_that_verifies_trusts_the_system_unless_there_is_a_ca() -> None:
    target = replace(TARGET, tls=Tls(TlsMode.VERIFY_FULL), password=FixedPassword("secret"))
    found = to_parameters(target, "k")
    assert (found["sslmode"], found["sslrootcert"]) == ("verify-full", "system")
    assert found["password"] == "secret"
    assert "secret" not in repr(target)


def test_stores_of_one_database_have_names_locks_and_channels_of_their_own() -> None:
    places = [
        (TARGET, "public"), (TARGET, 'odd"name'), (replace(TARGET, prefix="b_"), "public"),
    ]  # fmt: skip
    assert len({to_channel(*place) for place in places}) == 3
    keys = {to_lock_key(*place, purpose) for place in places for purpose in ("turn", "start")}
    assert len(keys) == 6
    assert all(-(1 << 63) <= key < 1 << 63 for key in keys)
    assert to_names(*places[1]).head == '"odd""name"."byre_head"'


# -- tails --------------------------------------------------------------------------------------

HEAD = (0, 7, 9, -1, -1, -1, 1, 0, None, None)


def commit_row(change: int, revision: int, batch: bytes) -> tuple[object, ...]:
    return (1, change, revision, 1, 0, 0, 0, 0, batch, None)


def test_a_tail_comes_in_any_order() -> None:
    found = [
        (2, 9 << 20, 9, 1, 0, 0, 0, 0, b"b", b"2"),
        commit_row(7, 9, b"y" * 16),
        (2, 8 << 20, 8, 1, 0, 0, 0, 0, b"a", b"1"),
        HEAD,
        commit_row(5, 7, b"p" * 16),
        commit_row(6, 8, b"x" * 16),
    ]
    tail = read_tail(Commit(5, 7, b"p" * 16, Kinds.LOG), found, lambda: 0)
    assert tail.head == Head(7, 9, -1, -1, (1 << 64) - 1, 1)
    assert [commit.change for commit in tail.commits] == [6, 7]
    assert [row.value for row in tail.rows] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("change", "batch", "oldest"), [(5, b"q" * 16, 0), (8, b"p" * 16, 0), (4, b"p" * 16, 4)]
)
def test_another_history_is_noticed(change: int, batch: bytes, oldest: int) -> None:
    found = [HEAD, commit_row(5, 7, b"p" * 16)]
    with pytest.raises(Diverged):
        read_tail(Commit(change, 7, batch, Kinds.LOG), found, lambda: oldest)


def test_a_position_whose_commit_was_pruned_is_no_other_history() -> None:
    found = [HEAD, commit_row(5, 7, b"p" * 16)]
    tail = read_tail(Commit(3, 7, b"q" * 16, Kinds.LOG), found, lambda: 5)
    assert [commit.change for commit in tail.commits] == [5]


def test_a_head_on_a_replica_is_not_believed() -> None:
    replica = (*HEAD[:7], 1, None, None)
    with pytest.raises(Unavailable, match="connect to the primary"):
        read_tail(Commit(7, 9, b"p" * 16, Kinds.LOG), [replica], lambda: 0)


def test_values_come_in_the_order_asked_for() -> None:
    pruned, found, looked = cut_values(4, {2: b"two", 1: b"one"}, [1, 3, 2])
    assert (pruned, list(found.items()), looked) == (4, [(1, b"one"), (2, b"two")], 3)
    assert cut_values(4, {}, [9]) == Values(4, {}, 1)


def test_a_page_of_values_ends_with_the_one_that_fills_it() -> None:
    found = dict.fromkeys((1, 2, 3), bytes(PAGE_BYTES // 2))
    assert cut_values(4, found, [1, 2, 3]).looked == 2


# -- links --------------------------------------------------------------------------------------


class Refusing:
    """A driver whose server is away until it is let in."""

    errors: type[Exception] = ConnectionError

    def __init__(self) -> None:
        self.tries = 0
        self.away = True

    def connect(self) -> object:
        self.tries += 1
        if self.away:
            raise NotReady("nobody there")
        return object()

    def is_usable(self, connection: object) -> bool:
        return True

    def close(self, connection: object) -> None:
        pass

    def query(self, connection: object, statement: str, values: object = None) -> list[str]:
        return [statement]

    def explain(self, error: Exception) -> Unavailable:
        return Unavailable(str(error))


def test_a_server_that_is_away_is_not_asked_by_everybody() -> None:
    driver = Refusing()
    link: Link[object] = Link(driver, Stats())
    for _ in range(100):
        with pytest.raises(Unavailable, match="nobody there"):
            link.query("SELECT 1")
    assert driver.tries < 10
    link._retry_at = 0.0
    driver.away = False
    assert link.query("SELECT 1") == ["SELECT 1"]
    link.close()
    with pytest.raises(Unavailable, match="closed"):
        link.query("SELECT 1")
