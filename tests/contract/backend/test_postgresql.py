"""What holds on PostgreSQL beyond the contract: the rules of its append, hints and sessions."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from datastore.shim.backends.api import (
    Alarm,
    Appended,
    AuthState,
    Backend,
    Batch,
    Commit,
    Corrupt,
    Diverged,
    Full,
    Head,
    Kinds,
    Member,
    Moved,
    OutcomeUnknown,
    Unavailable,
    to_row_id,
)
from datastore.shim.backends.postgresql import PostgresqlBackend
from datastore.shim.backends.postgresql_hints import to_channel
from datastore.shim.backends.postgresql_session import LOCK_SECONDS, PostgresqlDriver
from tests.support import batches
from tests.support.databases import PostgresqlServer
from tests.support.pgbouncer import pgbouncer_before
from tests.support.running import eventually

OTHER_COMMITS = """
WITH h AS (UPDATE byre_head SET change = change + 1 WHERE id = 1 RETURNING change, revision)
INSERT INTO byre_commit (change, revision, batch, kinds)
SELECT change, revision, '\\x11111111111111111111111111111111', 0 FROM h
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"


@contextmanager
def opened(server: PostgresqlServer, database: str, **more: str) -> Iterator[PostgresqlBackend]:
    backend = PostgresqlBackend(server.target(database, **more))
    backend.open()
    with closing(backend):
        yield backend


@pytest.fixture
def backend(server: PostgresqlServer, database: str) -> Iterator[PostgresqlBackend]:
    with opened(server, database) as backend:
        yield backend


@contextmanager
def raw(server: PostgresqlServer, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect as somebody who is not byre, with transactions of their own."""
    with closing(psycopg.connect(server.url(database))) as connection:
        yield connection


def await_a_waiter(server: PostgresqlServer, database: str) -> None:
    eventually(lambda: server.execute(WAITING, [database])[0][0] > 0, "somebody waits for a lock")


# -- the append (log.md A12, A14, H) ------------------------------------------------------------


def test_the_loser_of_a_race_writes_nothing(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = backend.head()
    with raw(server, database) as other, ThreadPoolExecutor(1) as pool:
        other.execute(OTHER_COMMITS)
        losing = pool.submit(backend.append, batches.keys(head, batches.put(2)))
        await_a_waiter(server, database)
        other.commit()
        assert losing.result() == Moved(head._replace(change=1))
    assert backend.commit(1) == Commit(1, 1, b"\x11" * 16, Kinds.NONE)
    assert backend.commit(2) is None
    assert backend.history(1, 9, 10).rows == []


def test_the_winner_that_rolls_back_lets_the_other_in(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = backend.head()
    with raw(server, database) as other, ThreadPoolExecutor(1) as pool:
        other.execute(OTHER_COMMITS)
        waiting = pool.submit(backend.append, batches.keys(head, batches.put(2)))
        await_a_waiter(server, database)
        other.rollback()
        assert isinstance(waiting.result(), Appended)
    assert backend.head() == head._replace(change=1, revision=2)


def test_a_loser_with_leases_alarms_and_users_writes_none_of_them(backend: Backend) -> None:
    head = batches.commit(backend, batches.grant(backend.head(), (7, 60)))
    late = full_batch(head)._replace(expected=0)
    assert batches.moved(backend, late) == head
    assert [lease.id for lease in backend.leases()] == [7]
    assert not backend.alarms()
    assert not backend.auth().rows
    assert backend.head() == head


def full_batch(head: Head) -> Batch:
    return batches.keys(head, batches.put(head.revision + 1))._replace(
        kinds=Kinds.LOG | Kinds.LEASE | Kinds.ALARM | Kinds.AUTH | Kinds.COMPACT,
        granted=[(8, 60)],
        dropped=[7],
        alarms=[Alarm(1, 1)],
        auth=AuthState({(1, b"a"): b"b"}),
        compacted=1,
    )


def test_a_lock_that_is_held_too_long_is_moved_and_nothing_is_written(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = backend.head()
    with raw(server, database) as silent:
        silent.execute(OTHER_COMMITS)
        assert batches.moved(backend, batches.keys(head, batches.put(2))) == head
    assert batches.commit(backend, batches.empty(head)).change == 1


def test_a_migrated_store_is_left_alone_by_an_older_server(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = backend.head()
    server.execute("UPDATE byre_head SET schema_version = 99", database=database)
    with pytest.raises(Diverged, match="schema 99"):
        backend.append(batches.keys(head, batches.put(2)))
    assert backend.head().change == 0


@pytest.mark.parametrize("isolation", ["serializable", "repeatable read", "read committed"])
def test_sessions_are_read_committed_whatever_the_database_says(
    server: PostgresqlServer, database: str, isolation: str
) -> None:
    server.execute(f"CREATE DATABASE {database}")
    server.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = '{isolation}'")
    with opened(server, database) as backend:
        head = backend.head()
        with raw(server, database) as other, ThreadPoolExecutor(1) as pool:
            other.execute(OTHER_COMMITS)
            losing = pool.submit(backend.append, batches.empty(head))
            await_a_waiter(server, database)
            other.commit()
            assert losing.result() == Moved(head._replace(change=1))


def test_a_commit_is_on_disk_whatever_the_database_says(
    server: PostgresqlServer, database: str
) -> None:
    server.execute(f"CREATE DATABASE {database}")
    server.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    with closing(PostgresqlDriver(server.target(database)).connect()) as session:
        assert session.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert session.execute("SHOW statement_timeout").fetchone() != ("0",)


# -- round trips --------------------------------------------------------------------------------


def trips(backend: PostgresqlBackend, action: Callable[[], object]) -> int:
    """Return how often the append's connection handed the word to the server."""
    connections = backend._connections
    assert connections is not None
    with tempfile.TemporaryFile() as trace:
        with connections.appends.use() as session:
            session.pgconn.trace(trace.fileno())
        action()
        session.pgconn.untrace()
        trace.seek(0)
        return len(re.findall(rb"\tF\t\d+\t(?:Sync|Query)\b", trace.read()))


def test_a_batch_is_one_round_trip(backend: PostgresqlBackend) -> None:
    # A statement is prepared when it comes for the second time, which takes another one.
    head = batches.fill(backend, [[b"warm"]] * 3)
    rows = [batches.put(head.revision + 1, sub) for sub in range(512)]
    assert trips(backend, lambda: backend.append(batches.keys(head, *rows))) == 1
    assert backend.head().change == head.change + 1


def test_a_turn_is_two_round_trips(backend: PostgresqlBackend) -> None:
    head = batches.fill(backend, [[b"warm"]])
    position = backend.commit(head.change)
    assert position is not None

    def take_a_turn() -> None:
        with backend.turn() as turn:
            tail = turn.tail(position, 100)
            turn.append(batches.keys(tail.head, batches.put(tail.head.revision + 1)))

    assert trips(backend, take_a_turn) == 2
    assert backend.head().change == head.change + 1


# -- hints (log.md A10) -------------------------------------------------------------------------


@contextmanager
def listening(server: PostgresqlServer, database: str) -> Iterator[Callable[[], list[str]]]:
    """Hear what is notified; the function returns what came before it was called."""
    channel = to_channel(server.target(database), "public")
    with raw(server, database) as ear:
        ear.autocommit = True
        ear.execute(f"LISTEN {channel}")
        ear.execute("LISTEN the_end")

        def heard() -> list[str]:
            ear.execute("NOTIFY the_end")
            payloads = []
            for note in ear.notifies(timeout=10):
                if note.channel == "the_end":
                    break
                payloads.append(note.payload)
            return payloads

        yield heard


def test_a_commit_is_notified(server: PostgresqlServer, database: str, backend: Backend) -> None:
    with listening(server, database) as heard:
        batches.fill(backend, [[b"a"]])
        eventually(lambda: bool(heard()), "a notification")


def test_commits_in_quick_succession_share_a_notification(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    with listening(server, database) as heard:
        batches.fill(backend, [[b"a"]] * 200)
        backend.close()
        assert 1 <= len(heard()) <= 150


def test_nobody_is_notified_where_nobody_else_lives(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    with listening(server, database) as heard:
        backend.heartbeat(Member(1, "alone", (), 1))
        batches.fill(backend, [[b"a"]] * 3)
        backend.close()
        assert heard() == []


def test_a_server_is_not_woken_by_itself(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    woken = threading.Event()
    listener: Any = backend.listen(woken.set)
    assert listener.listening.wait(10)
    with listening(server, database) as heard:
        batches.fill(backend, [[b"own"]])
        eventually(lambda: bool(heard()), "the own notification")
    assert not woken.is_set()
    with opened(server, database) as other:
        batches.fill(other, [[b"foreign"]])
        assert woken.wait(10)
    listener.close()


def test_a_listener_that_lost_its_connection_wakes_when_it_is_back(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    woken = threading.Event()
    listener: Any = backend.listen(woken.set)
    assert listener.listening.wait(10)
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = %s AND query LIKE 'LISTEN%%'",
        [database],
    )
    assert woken.wait(10)
    listener.close()


def test_behind_a_pooler_there_are_polls_and_no_session_is_changed(
    server: PostgresqlServer, database: str
) -> None:
    with pgbouncer_before(server) as pooler:
        backend = PostgresqlBackend(pooler.target(database))
        backend.open()
        assert backend.listen(lambda: None) is None
        batches.fill(backend, [[b"a"]] * 20)
        backend.close()
        with closing(psycopg.connect(pooler.url(database))) as session:
            assert session.execute("SHOW statement_timeout").fetchone() == ("0",)
            prepared = session.execute("SELECT count(*) FROM pg_prepared_statements")
            assert prepared.fetchone() == (0,)


# -- where it must not write (log.md A13) -------------------------------------------------------


def test_a_database_that_is_read_only_is_unavailable_until_it_is_not(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = backend.head()
    server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    kick(server, database)
    with pytest.raises(Unavailable, match="can only be read"):
        backend.head()
    with pytest.raises(Unavailable, match="can only be read"):
        backend.append(batches.empty(head))
    with pytest.raises(Unavailable, match="can only be read"):
        backend.keep_alive([1])
    # Sessions that began before must not be kept.
    server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = off")
    eventually(lambda: _has_head(backend), "the head can be read again")
    assert isinstance(backend.append(batches.empty(head)), Appended)
    assert backend.keep_alive([1]) == set()


def kick(server: PostgresqlServer, database: str) -> None:
    """End all sessions of a database."""
    server.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s",
        [database],
    )


def _has_head(backend: Backend) -> bool:
    try:
        backend.head()
    except Unavailable:
        return False
    return True


# -- errors by SQLSTATE -------------------------------------------------------------------------

TRIGGER = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'made by the test' USING ERRCODE = '{code}'; END $$;
CREATE TRIGGER fail BEFORE INSERT ON byre_log FOR EACH ROW EXECUTE FUNCTION fail()
"""


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("53100", Full),
        ("53200", Unavailable),
        ("57014", Unavailable),
        ("25006", Unavailable),
        ("42501", Unavailable),
        ("23505", Corrupt),
        ("42P01", Corrupt),
        ("XX001", Corrupt),
        ("XX002", Corrupt),
    ],
)
def test_an_append_that_is_refused_is_not_written(
    server: PostgresqlServer,
    database: str,
    backend: Backend,
    code: str,
    error: type[Exception],
) -> None:
    server.execute(TRIGGER.format(code=code), database=database)
    with pytest.raises(error):
        backend.append(batches.keys(backend.head(), batches.put(2)))
    assert batches.commit(backend, batches.empty(backend.head())).change == 1


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03"])
def test_an_append_that_the_database_wants_tried_again_has_moved(
    server: PostgresqlServer, database: str, backend: Backend, code: str
) -> None:
    server.execute(TRIGGER.format(code=code), database=database)
    head = backend.head()
    assert batches.moved(backend, batches.keys(head, batches.put(2))) == head


def test_a_session_that_ended_while_idle_is_replaced_without_anybody_noticing(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = batches.fill(backend, [[b"a"]])
    kick(server, database)
    assert backend.head() == head
    assert isinstance(backend.append(batches.empty(head)), Appended)
    assert backend.expire(10) == []


def test_a_session_that_ends_during_an_append_leaves_its_outcome_unknown(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = backend.head()
    with raw(server, database) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("SELECT 1 FROM byre_head FOR UPDATE")
        waiting = pool.submit(backend.append, batches.empty(head))
        await_a_waiter(server, database)
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = %s AND wait_event_type = 'Lock'",
            [database],
        )
        with pytest.raises(OutcomeUnknown):
            waiting.result()
        holder.rollback()
    assert backend.commit(1) is None
    assert isinstance(backend.append(batches.empty(head)), Appended)


# -- reading beside others ----------------------------------------------------------------------


def test_a_load_sees_one_snapshot_while_another_server_prunes(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    names = [b"%d" % number for number in range(3000)]
    head = batches.fill(backend, [names, names, [b"last"]])
    head = batches.commit(backend, batches.compact(head, 3))
    with opened(server, database) as other, backend.load() as (loaded, _, pages):
        metas = list(next(iter(pages)))
        other.prune(3, [to_row_id(2, sub) for sub in range(3000)])
        metas += [meta for page in pages for meta in page]
    assert loaded == head
    assert len(metas) == 6001
    assert backend.head().pruned == 3


def test_a_page_of_the_tail_ends_at_whole_commits_and_bytes(backend: Backend) -> None:
    start = backend.commit(0)
    assert start is not None
    head = backend.head()
    for _ in range(4):
        revision = head.revision + 1
        rows = [batches.put(revision, sub, b"k", bytes(3 << 20)) for sub in range(2)]
        head = batches.commit(backend, batches.keys(head, *rows))
    tail = backend.tail(start, 1000)
    assert [commit.change for commit in tail.commits] == [1, 2]
    assert len(tail.rows) == 4
    page = backend.history(2, 9, 1000)
    assert (len(page.rows), page.more) == (4, True)


def test_lock_waits_end_before_anybody_gives_up(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    """A silent transaction on leases cannot hold up keepalives for ever."""
    batches.commit(backend, batches.grant(backend.head(), (1, 60)))
    with raw(server, database) as silent:
        silent.execute("SELECT 1 FROM byre_lease FOR UPDATE")
        with pytest.raises(Unavailable):
            backend.keep_alive([1])
    assert backend.keep_alive([1]) == {1}
    assert LOCK_SECONDS < 5
