"""What becomes of a commit on PostgreSQL when a client or the server dies, hangs or comes back."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import datastore
from datastore.shim.backends.api import (
    Appended,
    Backend,
    Diverged,
    Moved,
    NotReady,
    OutcomeUnknown,
    Unavailable,
)
from datastore.shim.backends.postgresql import PostgresqlBackend
from datastore.shim.backends.postgresql_session import CLIENT_SECONDS, IDLE_SECONDS
from tests.support import batches
from tests.support.databases import USER, PostgresqlServer, database_on, running_postgresql
from tests.support.running import eventually, suspend
from tests.support.slow_sync import Gate
from tests.tools.databases import obtain

WAITING = """
SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s
"""
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
# It syncs by itself, or waits for the lock of whoever syncs, as the WAL writer, which looks for
# something to sync five times a second and may have taken up the row before its commit.
SYNCING = """
SELECT 1 FROM pg_stat_activity
WHERE backend_type = 'client backend' AND lower(wait_event) IN ('walsync', 'walwrite')
"""

CLIENT = """
import sys
from datastore.dsn import Dsn, to_target
from datastore.shim.backends.api import BackendError, Batch, Kinds
from datastore.shim.backends.postgresql import PostgresqlBackend

url, work, batch = sys.argv[1:]
backend = PostgresqlBackend(to_target(Dsn(url)))
head = backend.open()
written = Batch(bytes.fromhex(batch), head.change, head.revision, Kinds.NONE)
if work == "append":
    backend.append(written)
else:
    with backend.turn() as turn:
        turn.tail(backend.commit(head.change), 10)
        print("mine", flush=True)
        sys.stdin.readline()
        try:
            print(type(turn.append(written)).__name__, flush=True)
        except BackendError as error:
            print(type(error).__name__, flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    with running_postgresql() as server:
        yield server


@pytest.fixture
def database(server: PostgresqlServer) -> Iterator[str]:
    with database_on(server) as name:
        yield name


@pytest.fixture
def backend(server: PostgresqlServer, database: str) -> Iterator[Backend]:
    backend = PostgresqlBackend(server.target(database))
    backend.open()
    with closing(backend):
        yield backend


class Client:
    """Another server's process, which does one thing."""

    def __init__(self, server: PostgresqlServer, database: str, work: str) -> None:
        self.batch = secrets.token_bytes(16)
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, server.url(database), work, self.batch.hex()],
            cwd=Path(datastore.__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def client(server: PostgresqlServer, database: str, work: str) -> Iterator[Client]:
    with closing(Client(server, database, work)) as client:
        yield client


@contextmanager
def head_held(server: PostgresqlServer, database: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold the row of the head, so that appends wait, until a rollback."""
    with closing(psycopg.connect(server.url(database))) as holder:
        holder.execute("SELECT 1 FROM byre_head WHERE id = 1 FOR UPDATE")
        yield holder


def waiters(server: PostgresqlServer, database: str) -> list[int]:
    return [pid for (pid,) in server.execute(WAITING, [database])]


def test_the_commit_of_a_dead_client_is_decided_by_its_row(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    """Log.md A1: a head read after the client's death says nothing about its commit."""
    head = backend.head()
    fence = batches.empty(head)
    with (
        head_held(server, database) as holder,
        client(server, database, "append") as zombie,
        ThreadPoolExecutor(1) as pool,
    ):
        eventually(lambda: len(waiters(server, database)) == 1, "the client's append waits")
        zombie.process.send_signal(signal.SIGKILL)
        zombie.process.wait()
        assert backend.head() == head
        assert backend.commit(1) is None
        fencing = pool.submit(backend.append, fence)
        eventually(lambda: len(waiters(server, database)) == 2, "the fence waits behind it")
        holder.rollback()
        assert fencing.result() == Moved(head._replace(change=1))
        decided = backend.commit(1)
        assert decided is not None
        assert decided.batch == zombie.batch


def test_a_fence_that_goes_in_keeps_a_dead_clients_commit_out_for_ever(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = backend.head()
    fence = batches.empty(head)
    with (
        head_held(server, database) as holder,
        client(server, database, "append") as zombie,
    ):
        eventually(lambda: len(waiters(server, database)) == 1, "the client's append waits")
        zombie.process.send_signal(signal.SIGKILL)
        zombie.process.wait()
        (pid,) = waiters(server, database)
        server.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
        holder.rollback()
        assert isinstance(backend.append(fence), Appended)
    decided = backend.commit(1)
    assert decided is not None
    assert decided.batch == fence.batch
    assert backend.head().change == 1


def test_a_client_that_hangs_loses_its_turn_and_writes_nothing_afterwards(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    start = backend.commit(0)
    assert start is not None
    with client(server, database, "turn") as silent:
        assert silent.line() == "mine"
        suspend(silent.process.pid)
        begun = time.monotonic()
        with backend.turn() as turn:
            tail = turn.tail(start, 10)
            outcome = turn.append(batches.empty(tail.head))
        assert isinstance(outcome, Appended)
        assert time.monotonic() - begun < IDLE_SECONDS + 3
        silent.process.send_signal(signal.SIGCONT)
        silent.go_on()
        assert silent.line() in {"OutcomeUnknown", "Unavailable"}
        assert backend.head().change == 1


def test_a_server_that_hangs_is_not_waited_for(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = batches.fill(backend, [[b"a"]])
    doubtful = batches.empty(head)
    stopped = [pid for (pid,) in server.execute(SESSIONS, [database])]
    server.signal(signal.SIGSTOP)
    for pid in stopped:
        suspend(pid)
    try:
        begun = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            backend.append(doubtful)
        with pytest.raises(Unavailable):
            backend.head()
        with pytest.raises(Unavailable):
            backend.keep_alive([1])
        assert time.monotonic() - begun < 3 * CLIENT_SECONDS + 3
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        server.signal(signal.SIGCONT)
    eventually(lambda: _has_head(backend), "the database can be read again")
    # It was on its way, so it may be there by now; the fence says so for ever.
    fenced = backend.append(batches.empty(head))
    decided = backend.commit(head.change + 1)
    assert decided is not None
    assert (decided.batch == doubtful.batch) == isinstance(fenced, Moved)


def test_a_server_that_crashed_and_came_back_has_all_that_it_confirmed(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = batches.fill(backend, [[b"%d" % number] for number in range(50)])
    server.stop(signal.SIGQUIT)
    with pytest.raises(Unavailable):
        backend.head()
    with pytest.raises(Unavailable) as refused:
        backend.append(batches.empty(head))
    assert f"127.0.0.1:{server.port}" in str(refused.value)
    server.start()
    eventually(lambda: _has_head(backend), "the database can be read again")
    assert backend.head() == head
    assert isinstance(_append_once_there(backend, lambda: batches.empty(head)), Appended)
    assert len(backend.history(2, 99, 100).rows) == 50


def _has_head(backend: Backend) -> bool:
    try:
        backend.head()
    except Unavailable:
        return False
    return True


def _append_once_there(backend: Backend, make: Callable[[], Any]) -> object:
    """Append as soon as the append's own connection may be tried again."""
    outcomes: list[object] = []

    def is_there() -> bool:
        try:
            outcomes.append(backend.append(make()))
        except Unavailable:
            return False
        return True

    eventually(is_there, "the database can be written again")
    return outcomes[0]


def test_a_replica_is_refused_and_one_that_was_promoted_too_early_has_diverged(
    server: PostgresqlServer, database: str, backend: Backend
) -> None:
    head = batches.fill(backend, [[b"a"]] * 3)
    with closing(_make_replica(server)) as replica:
        replica.start()
        with pytest.raises(NotReady, match="it is a replica"):
            PostgresqlBackend(replica.target(database)).open()
        replica.execute("SELECT pg_promote()")
        position = backend.commit(batches.fill(backend, [[b"b"]] * 2).change)
        assert position is not None
        promoted = PostgresqlBackend(replica.target(database))
        lost = promoted.open()
        with closing(promoted):
            assert head.change <= lost.change <= position.change
            batches.fill(promoted, [[b"other"]] * 4)
            with pytest.raises(Diverged):
                promoted.tail(position, 10)


def _make_replica(server: PostgresqlServer) -> PostgresqlServer:
    replica = PostgresqlServer()
    shutil.rmtree(replica.data)
    replica.account.run([
        obtain("postgres").with_name("pg_basebackup"), "-D", replica.data, "-h", "127.0.0.1",
        "-p", str(server.port), "-U", USER, "-R", "--checkpoint=fast", "--no-sync",
    ])  # fmt: skip
    return replica


def test_others_see_a_commit_only_when_it_is_on_disk() -> None:
    """Log.md A7: what may be taken back by a power cut is not served."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        gate = Gate(Path(directory))
        server = PostgresqlServer(environment=gate.environment)
        with closing(server):
            server.start()
            writing = PostgresqlBackend(server.target("slow"))
            reading = PostgresqlBackend(server.target("slow"))
            head = writing.open()
            reading.open()
            with closing(writing), closing(reading), ThreadPoolExecutor(1) as pool:
                _be_patient(writing)
                with gate.closed():
                    append = pool.submit(writing.append, batches.keys(head, batches.put(2)))
                    eventually(lambda: _waits_for_disk(server), "the commit waits for the disk")
                    assert reading.head() == head
                    assert reading.commit(1) is None
                    assert not append.done()
                assert isinstance(append.result(60), Appended)
                assert reading.head() == head._replace(change=1, revision=2)


def _be_patient(backend: PostgresqlBackend) -> None:
    connections = backend._connections
    assert connections is not None
    with connections.appends.use() as session:
        session.limit = 60.0


def _waits_for_disk(server: PostgresqlServer) -> bool:
    return bool(server.execute(SYNCING))
