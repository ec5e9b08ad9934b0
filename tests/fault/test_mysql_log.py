"""The rules of the log on MariaDB (log.md), each with what would break it."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pymysql
import pytest

from datastore.dsn import Host
from datastore.shim.backends.api import (
    Appended,
    Backend,
    Commit,
    Diverged,
    Kinds,
    Moved,
    OutcomeUnknown,
    Unavailable,
    to_row_id,
)
from datastore.shim.backends.limits import NO_BATCH
from datastore.shim.backends.mysql import MysqlBackend
from datastore.shim.backends.mysql_append import Append, write
from datastore.shim.backends.mysql_errors import GUARD, Contended, to_code
from datastore.shim.backends.mysql_session import MysqlDriver, Patience, open_socket
from datastore.shim.backends.mysql_setup import to_names
from tests.support import batches
from tests.support.databases import database_on
from tests.support.mariadb import MariadbServer, running_mariadb
from tests.support.proxy import Mode, Proxy
from tests.support.running import eventually
from tests.support.slow_sync import Gate

START = Commit(0, 1, NO_BATCH, Kinds.NONE)
SHORT = Patience(reply=3.0, lock=1, silence=2)
LONG = Patience(reply=60.0, lock=50, silence=60)

Connect = Callable[[Patience], MysqlBackend]


@pytest.fixture
def server(servers: Callable[[str], Any]) -> MariadbServer:
    return cast("MariadbServer", servers("mariadb"))


@pytest.fixture
def name(server: MariadbServer) -> Iterator[str]:
    with database_on(server) as name:
        yield name


@pytest.fixture
def connect(server: MariadbServer, name: str) -> Iterator[Connect]:
    """Give servers on one database."""
    with backends_on(server, name) as connect:
        yield connect


@contextmanager
def backends_on(server: MariadbServer, name: str) -> Iterator[Connect]:
    with ExitStack() as stack:

        def open_one(patience: Patience) -> MysqlBackend:
            backend = MysqlBackend(server.target(name), patience)
            backend.open()
            stack.callback(backend.close)
            return backend

        yield open_one


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def statements(server: MariadbServer) -> list[str]:
    """Return what the server's sessions are doing."""
    found = server.execute("SELECT COALESCE(info, '') FROM information_schema.processlist")
    return [str(info) for (info,) in found]


def rows_of(backend: Backend) -> int:
    return len(backend.history(1, 1 << 30, 1 << 30).rows)


# -- the compare ------------------------------------------------------------------------------


def test_a_loser_writes_nothing_and_holds_no_lock(connect: Connect, server: MariadbServer) -> None:
    """A8: the packet ends where the compare was lost, and nobody waits for its ROLLBACK."""
    backend = connect(SHORT)
    head = batches.fill(backend, [[b"a"], [b"b"]])
    target = backend._target
    session = MysqlDriver(target, SHORT, SHORT.silence).connect()
    stale = batches.keys(head._replace(change=1), batches.put(9))
    packets = Append(to_names(target)).build(stale, 1 << 20)
    with pytest.raises(pymysql.Error) as caught:
        session.run(packets.last)
    assert to_code(caught.value) == GUARD
    # The loser's transaction is open still.
    assert isinstance(backend.append(batches.empty(head)), Appended)
    session.run("ROLLBACK")
    with pytest.raises(Contended):
        write(session, packets)
    assert session.is_usable()
    session.close()
    assert rows_of(backend) == 2


def test_contenders_leave_one_commit_for_each_change_and_all_its_rows(
    connect: Connect, pool: ThreadPoolExecutor
) -> None:
    """A12: whoever wins writes all, whoever loses nothing, without an error of the database."""
    each = 60

    def contend(backend: MysqlBackend) -> int:
        won = lost = 0
        head = backend.head()
        while won < each:
            revision = head.revision + 1
            rows = [batches.put(revision, sub, b"%d" % sub) for sub in range(3)]
            outcome = backend.append(batches.keys(head, *rows))
            head = outcome.head
            won += isinstance(outcome, Appended)
            lost += isinstance(outcome, Moved)
        return lost

    contenders = [connect(Patience()) for _ in range(3)]
    lost = list(pool.map(contend, contenders))
    head = contenders[0].head()
    assert head.change == head.revision - 1 == 3 * each
    assert rows_of(contenders[0]) == 3 * head.change
    assert sum(lost) > 0, "nobody ever contended"


def test_another_schema_version_stops_a_server_instead_of_its_writing(
    connect: Connect, server: MariadbServer, name: str
) -> None:
    """A14."""
    backend = connect(SHORT)
    head = backend.head()
    server.execute("UPDATE byre_head SET schema_version = 99", database=name)
    with pytest.raises(Diverged, match="schema 99"):
        backend.append(batches.empty(head))
    assert backend.commit(1) is None


# -- locks ------------------------------------------------------------------------------------


def test_a_lock_that_is_not_given_in_time_means_moved_and_the_session_goes_on(
    connect: Connect, server: MariadbServer, name: str
) -> None:
    """A12: error 1205 leaves the transaction open, so it is rolled back first."""
    backend = connect(SHORT)
    head = backend.head()
    with server.connect(name) as holder:
        holder.begin()
        holder.query("SELECT * FROM byre_head FOR UPDATE")
        outcome = backend.append(batches.keys(head, batches.put(2)))
        assert isinstance(outcome, Moved)
        assert outcome.head == head
        holder.rollback()
    assert isinstance(backend.append(batches.keys(head, batches.put(2))), Appended)
    assert rows_of(backend) == 1


def test_a_server_that_hangs_in_its_turn_loses_the_lock_and_cannot_write(
    connect: Connect, pool: ThreadPoolExecutor
) -> None:
    """A8: a silent holder is thrown out after `silence`; woken, it is refused."""
    hanging, other = connect(SHORT), connect(SHORT)
    head = other.head()
    with hanging.turn() as turn:
        turn.tail(START, 10)
        with pytest.raises(Unavailable, match="had the turn for too long"), other.turn() as wanted:
            wanted.tail(START, 10)
        while isinstance(other.append(batches.empty(head)), Moved):
            assert other.head() == head
        with pytest.raises((Unavailable, OutcomeUnknown)):
            turn.append(batches.empty(head))
    assert other.head().change == 1
    assert isinstance(hanging.append(batches.empty(other.head())), Appended)


def test_turns_are_taken_in_order_and_nobody_loses(
    connect: Connect, pool: ThreadPoolExecutor
) -> None:
    """A9: with the lock taken first there are no losers."""
    each = 30

    def work(backend: MysqlBackend) -> int:
        position, lost = START, 0
        for _ in range(each):
            with backend.turn() as turn:
                while True:
                    tail = turn.tail(position, 1000)
                    if not tail.commits:
                        break
                    position = tail.commits[-1]
                revision = tail.head.revision + 1
                outcome = turn.append(batches.keys(tail.head, batches.put(revision)))
            lost += isinstance(outcome, Moved)
        return lost

    workers = [connect(Patience(lock=30, reply=60)) for _ in range(3)]
    assert list(pool.map(work, workers)) == [0, 0, 0]
    assert workers[0].head().change == 3 * each


# -- replies that are lost ----------------------------------------------------------------------


def test_a_commit_of_a_client_that_has_gone_is_found_by_its_row(
    connect: Connect, server: MariadbServer, name: str, pool: ThreadPoolExecutor
) -> None:
    """A1: a fence waits behind the zombie, and then its row tells what happened."""
    zombie, fencing = connect(Patience(reply=1.0, lock=30)), connect(Patience(reply=60, lock=50))
    head = fencing.head()
    batch = batches.keys(head, batches.put(2))
    with server.connect(name) as holder:
        holder.begin()
        holder.query("SELECT * FROM byre_head FOR UPDATE")
        with pytest.raises(OutcomeUnknown):
            zombie.append(batch)
        assert fencing.head() == head
        assert fencing.commit(1) is None, "undecided"
        fence = pool.submit(fencing.append, batches.empty(head))
        eventually(
            lambda: sum("UPDATE `byre_head`" in s for s in statements(server)) == 2,
            "the zombie and the fence wait for the lock",
        )
        holder.rollback()
    assert isinstance(fence.result(60), Moved)
    commit = fencing.commit(1)
    assert commit is not None
    assert commit.batch == batch.batch
    assert rows_of(fencing) == 1


@pytest.mark.parametrize("mode", [Mode.SWALLOW, Mode.HALF_OPEN], ids=lambda mode: mode.name)
def test_a_reply_that_does_not_come_is_an_unknown_outcome(
    server: MariadbServer, name: str, mode: Mode
) -> None:
    with Proxy(("127.0.0.1", server.port)) as proxy:
        target = replace(server.target(name), hosts=(Host("127.0.0.1", proxy.port),))
        backend = MysqlBackend(target, Patience(reply=1.0))
        head = batches.commit(backend, batches.empty(backend.open()))
        proxy.turn(mode)
        with pytest.raises(OutcomeUnknown):
            backend.append(batches.empty(head))
        with pytest.raises(Unavailable):
            backend.head()
        backend.close()


def test_a_server_that_hung_up_while_idle_is_noticed_before_anything_is_sent(
    connect: Connect, server: MariadbServer, name: str
) -> None:
    backend = connect(Patience())
    head = batches.commit(backend, batches.empty(backend.head()))
    for (number,) in server.execute(
        "SELECT id FROM information_schema.processlist WHERE db = %s", (name,)
    ):
        server.execute(f"KILL {number}")
    eventually(
        lambda: (
            not server.execute(
                "SELECT id FROM information_schema.processlist WHERE db = %s", (name,)
            )
        ),
        "the sessions have ended",
    )
    assert isinstance(backend.append(batches.empty(head)), Appended)
    assert backend.head().change == 2


# -- the database away --------------------------------------------------------------------------


def test_a_database_that_crashes_or_hangs_is_away_until_it_is_back() -> None:
    with running_mariadb() as server, backends_on(server, "store") as connect:
        backend = connect(Patience(reply=1.0))
        head = batches.fill(backend, [[b"a"]])
        server.signal(signal.SIGSTOP)
        with pytest.raises(OutcomeUnknown):
            backend.append(batches.empty(head))
        with pytest.raises(Unavailable):
            backend.tail(START, 10)
        server.stop(signal.SIGKILL)
        with pytest.raises(Unavailable):
            backend.append(batches.empty(head))
        server.start()
        eventually(lambda: _is_there(backend), "the backend has connected again")
        head = backend.head()
        assert head.change in {1, 2}
        assert isinstance(backend.append(batches.empty(head)), Appended)
        assert rows_of(backend) == 1


def _is_there(backend: Backend) -> bool:
    try:
        backend.head()
    except Unavailable:
        return False
    return True


def test_a_database_set_to_read_only_is_refused_with_the_reason(
    connect: Connect, server: MariadbServer
) -> None:
    """A13: the head of a replica may be an old one."""
    backend = connect(SHORT)
    server.execute("SET GLOBAL read_only = 1")
    try:
        for call in (backend.head, lambda: backend.tail(START, 10)):
            with pytest.raises(Unavailable, match=r"can only be read.*connect to the primary"):
                call()
    finally:
        server.execute("SET GLOBAL read_only = 0")
    assert backend.tail(START, 10).head.change == 0


# -- durability ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_server() -> Iterator[tuple[MariadbServer, Gate]]:
    """A server on disk whose syncs a test can hold back."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        gate = Gate(Path(directory))
        # Checkpoints and statistics sync the log as well, with others waiting for them.
        calm = {
            "innodb-stats-persistent": "OFF",
            "innodb-max-dirty-pages-pct": "99",
            "innodb-idle-flush-pct": "0",
            "innodb-adaptive-flushing": "OFF",
        }
        with running_mariadb(calm, gate.environment) as server:
            yield server, gate


@pytest.fixture
def slow(slow_server: tuple[MariadbServer, Gate]) -> Iterator[tuple[MariadbServer, Gate, Connect]]:
    server, gate = slow_server
    with database_on(server) as name, backends_on(server, name) as connect:
        yield server, gate, connect


def _is_visible(server: MariadbServer, name: str) -> bool:
    return server.execute("SELECT `change` FROM byre_head", database=name) == [(2,)]


def _covers(server: MariadbServer) -> bool:
    return any("UPDATE `byre_sync`" in statement for statement in statements(server))


@pytest.mark.parametrize("how", ["tail", "commit", "load", "turn"])
def test_commits_of_others_are_served_once_they_are_on_disk(
    slow: tuple[MariadbServer, Gate, Connect], pool: ThreadPoolExecutor, how: str
) -> None:
    """A7: MariaDB without a binary log shows them before."""
    server, gate, connect = slow
    writing, reading = connect(LONG), connect(LONG)
    # Tables that are used for the first time are counted, and that is written as well.
    head = batches.fill(writing, [[b"first"]])
    reading.tail(START, 10)
    name = writing._target.database
    batch = batches.keys(head, batches.put(3))
    with gate.closed():
        append: Future[Any] = pool.submit(writing.append, batch)
        eventually(lambda: _is_visible(server, name), "the commit can be seen")
        assert not append.done()
        read = pool.submit(READS[how], reading)
        eventually(lambda: _covers(server), "the reader waits for the disk")
        assert not read.done()
        assert not append.done()
    assert isinstance(append.result(60), Appended)
    assert read.result(60) == batch.batch


def _read_by_turn(backend: MysqlBackend) -> bytes:
    with backend.turn() as turn:
        return turn.tail(START, 10).commits[-1].batch


def _read_by_load(backend: MysqlBackend) -> bytes:
    with backend.load() as (_, commit, _):
        return commit.batch


def _read_commit(backend: MysqlBackend) -> bytes:
    commit = backend.commit(2)
    assert commit is not None
    return commit.batch


READS: dict[str, Callable[[MysqlBackend], bytes]] = {
    "tail": lambda backend: backend.tail(START, 10).commits[-1].batch,
    "commit": _read_commit,
    "load": _read_by_load,
    "turn": _read_by_turn,
}


def test_what_an_own_commit_or_an_earlier_look_has_covered_is_not_written_for_again(
    connect: Connect, server: MariadbServer, name: str
) -> None:
    def covers() -> int:
        ((times,),) = server.execute("SELECT times FROM byre_sync", database=name)
        return int(times)

    one, two = connect(Patience()), connect(Patience())
    head = batches.commit(one, batches.empty(one.head()))
    assert len(one.tail(START, 10).commits) == 1
    assert covers() == 0
    for _ in range(3):
        assert len(two.tail(START, 10).commits) == 1
    assert covers() == 1
    batches.commit(two, batches.empty(head))
    assert len(two.tail(START, 10).commits) == 2
    assert covers() == 1


def test_a_commit_whose_sync_hangs_is_unknown_and_then_applied(
    slow: tuple[MariadbServer, Gate, Connect], pool: ThreadPoolExecutor
) -> None:
    """A1, A7: nobody says "applied" of a commit that a power cut would take back."""
    server, gate, connect = slow
    writing, settling = connect(Patience(reply=1.0)), connect(LONG)
    head = batches.fill(settling, [[b"first"]])
    batch = batches.keys(head, batches.put(3))
    with gate.closed():
        with pytest.raises(OutcomeUnknown):
            writing.append(batch)
        fate = pool.submit(settling.commit, 2)
        eventually(lambda: _covers(server), "whoever asks waits for the disk")
        assert not fate.done()
    commit = fate.result(60)
    assert commit is not None
    assert commit.batch == batch.batch


# -- large things -------------------------------------------------------------------------------


def test_a_transaction_above_the_packet_limit_takes_several_packets_and_is_one_commit() -> None:
    """A8: with literals at their worst, every byte of which is escaped."""
    settings = {"max-allowed-packet": "4M"}
    with running_mariadb(settings) as server, backends_on(server, "store") as connect:
        backend, other = connect(Patience()), connect(Patience())
        size = (1 << 20) + (1 << 18)
        rows = [batches.put(2, sub, b"'%d" % sub, b"\\" * size) for sub in range(6)]
        start = backend.head()
        batches.commit(backend, batches.keys(start, *rows))
        assert backend.history(2, 2, 100).rows == rows
        # The loser of such a transaction finds out with the first of its packets.
        assert batches.moved(other, batches.keys(start, *rows)).change == 1
        assert rows_of(other) == 6


def test_a_change_of_a_hundred_thousand_rows_is_one_commit(connect: Connect) -> None:
    """C6."""
    backend = connect(Patience(reply=60.0))
    rows = [batches.tombstone(2, sub, b"%d" % sub) for sub in range(100_000)]
    batches.commit(backend, batches.keys(backend.head(), *rows))
    tail = backend.tail(START, 1000)
    assert len(tail.commits) == 1
    assert len(tail.rows) == 100_000


def test_pages_end_by_bytes_as_well_and_large_values_come_back(connect: Connect) -> None:
    backend = connect(Patience())
    value = os.urandom(3 << 20)
    head = backend.head()
    for revision in range(2, 8):
        small = batches.put(revision, 1, b"small", b"%d" % revision)
        large = batches.put(revision, 0, b"large", value)
        head = batches.commit(backend, batches.keys(head, large, small))
    page = backend.history(2, 7, 1000)
    assert page.more
    assert 4 <= len(page.rows) < 12
    assert len(page.rows) % 2 == 0
    assert all(row.value in {value, b"%d" % (row.meta.id >> 20)} for row in page.rows)
    tail = backend.tail(START, 1000)
    assert [row.meta.id for row in tail.rows] == [row.meta.id for row in page.rows]
    assert tail.commits[-1].revision == tail.rows[-1].meta.id >> 20


# -- sessions -----------------------------------------------------------------------------------


def test_a_session_does_not_depend_on_the_defaults_of_the_server() -> None:
    """A12: what a careless administrator may set changes nothing."""
    hostile = {
        "transaction-isolation": "SERIALIZABLE",
        "sql-mode": "ANSI,NO_BACKSLASH_ESCAPES",
        "character-set-server": "utf16",
        "collation-server": "utf16_general_ci",
        "init-connect": "SET autocommit=0, sql_select_limit=1, time_zone='+09:00'",
        "completion-type": "2",
        "default-time-zone": "+05:30",
    }
    with running_mariadb() as server:
        server.execute("CREATE USER plain@'127.0.0.1'")
        server.execute("GRANT ALL ON store.* TO plain@'127.0.0.1'")
        server.stop()
        server.settings.update(hostile)
        server.start()
        backend = MysqlBackend(server.target("store", user="plain"))
        backend.open()
        head = batches.fill(backend, [[b"a\\'\xff"], [b"A"], [b"a "]])
        head = batches.commit(backend, batches.grant(head, (1, 60), (2, 60)))
        assert [lease.remaining for lease in backend.leases()] == pytest.approx([60, 60], abs=5)
        assert backend.keep_alive([1, 2]) == {1, 2}
        names = [row.meta.key for row in backend.history(1, 9, 9).rows]
        assert names == [b"a\\'\xff", b"A", b"a "]
        assert len(backend.tail(START, 10).commits) == 4
        backend.close()


def test_no_session_outlives_its_backend(server: MariadbServer, name: str) -> None:
    backend = MysqlBackend(server.target(name))
    backend.open()
    head = batches.fill(backend, [[b"a"]])
    backend.keep_alive([])
    backend.history(1, 9, 9)
    batches.commit(backend, batches.compact(head, 2))
    backend.prune(2, [to_row_id(2, 0)])
    backend.close()
    eventually(
        lambda: (
            not server.execute(
                "SELECT id FROM information_schema.processlist WHERE db = %s", (name,)
            )
        ),
        "all sessions have ended",
    )


def test_a_peer_that_vanishes_is_looked_for(server: MariadbServer) -> None:
    with open_socket(server.target("mysql").hosts[0], 5) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
