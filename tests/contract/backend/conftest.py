"""Every backend, each in a place of its own, and the proof that it leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from datastore.shim.backends.api import Backend
from datastore.shim.backends.memory import Log, MemoryBackend
from datastore.shim.backends.mysql import MysqlBackend
from datastore.shim.backends.postgresql import PostgresqlBackend
from datastore.shim.backends.sqlite import SQLiteBackend
from tests.support.databases import PostgresqlServer, database_on
from tests.support.mariadb import MYSQL_URL, MariadbServer
from tests.support.pgbouncer import pgbouncer_before
from tests.support.quick_disk import quick_directory


class Clock(Protocol):
    """The clock by which a store's leases run."""

    slack: float
    """Seconds that pass by themselves before a test has looked."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""


class SetClock:
    """A clock that stands until it is moved."""

    slack = 0.0

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class DatabaseClock:
    """A database's own clock, which is moved by making everything that it judges older."""

    slack = 60.0  # of lives of many minutes: the machine may be busy

    def __init__(self, age: Callable[[str, str, float], None]) -> None:
        self._age = age

    def advance(self, seconds: float) -> None:
        self._age("byre_lease", "deadline", seconds)
        self._age("byre_member", "seen", seconds)


class Place(NamedTuple):
    """Somewhere a log is kept; each call of `connect` gives another server's backend on it."""

    connect: Callable[[], Backend]
    clock: Clock


Servers = Callable[[str], Any]
MakePlace = Callable[[Path, Servers], AbstractContextManager[Place]]


def _memory(*, shared: bool, deferred_sync: bool = False) -> MakePlace:
    @contextmanager
    def make(_: Path, __: Servers) -> Iterator[Place]:
        clock = SetClock()
        log = Log(clock=clock)
        yield Place(
            lambda: MemoryBackend(
                log, shared=shared, deferred_sync=deferred_sync, turn_seconds=5.0
            ),
            clock,
        )

    return make


@contextmanager
def _sqlite(directory: Path, _: Servers) -> Iterator[Place]:
    yield Place(lambda: SQLiteBackend(directory / "state.db"), SetClock())


def _postgresql_clock(server: PostgresqlServer, database: str) -> DatabaseClock:
    def age(table: str, column: str, seconds: float) -> None:
        server.execute(
            f"UPDATE {table} SET {column} = {column} - %s * interval '1 second'",
            (seconds,),
            database=database,
        )

    return DatabaseClock(age)


@contextmanager
def _postgresql(_: Path, servers: Servers) -> Iterator[Place]:
    server = servers("postgresql")
    with database_on(server) as name:
        yield Place(
            lambda: PostgresqlBackend(server.target(name)), _postgresql_clock(server, name)
        )


@contextmanager
def _pgbouncer(_: Path, servers: Servers) -> Iterator[Place]:
    server = servers("postgresql")
    with database_on(server) as name, pgbouncer_before(server) as pooler:
        # A pooler remembers for a while that a database was missing.
        server.execute(f"CREATE DATABASE {name}")
        target = pooler.target(name, listen=True)
        yield Place(lambda: PostgresqlBackend(target), _postgresql_clock(server, name))


def _mysql(kind: str) -> MakePlace:
    @contextmanager
    def make(_: Path, servers: Servers) -> Iterator[Place]:
        server = servers(kind)
        with database_on(server) as name:

            def age(table: str, column: str, seconds: float) -> None:
                server.execute(
                    f"UPDATE {table} SET {column} = {column} - INTERVAL %s SECOND",
                    (seconds,),
                    database=name,
                )

            yield Place(lambda: MysqlBackend(server.target(name)), DatabaseClock(age))

    return make


PLACES: dict[str, MakePlace] = {
    "memory": _memory(shared=False),
    "memory, deferred sync": _memory(shared=False, deferred_sync=True),
    "sqlite": _sqlite,
}
SHARED_PLACES: dict[str, MakePlace] = {
    "shared memory": _memory(shared=True),
    "postgresql": _postgresql,
    "postgresql behind pgbouncer": _pgbouncer,
    "mariadb": _mysql("mariadb"),
}
if MYSQL_URL:
    SHARED_PLACES["mysql"] = _mysql("mysql")


def open_files(directory: Path) -> list[str]:
    """Return the files below `directory` that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(f"{directory}/"):
            found.append(target)
    return found


@contextmanager
def leaving_nothing(directory: Path) -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= threads
    assert not open_files(directory)


@contextmanager
def opened(place: Place) -> Iterator[Backend]:
    backend = place.connect()
    backend.open()
    yield backend
    backend.close()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory in memory instead of pytest's own."""
    with quick_directory() as directory:
        yield directory


@pytest.fixture(params=PLACES | SHARED_PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[Place]:
    """Where any log is kept."""
    make = (PLACES | SHARED_PLACES)[request.param]
    with leaving_nothing(tmp_path), make(tmp_path, servers) as place:
        yield place


@pytest.fixture
def backend(place: Place) -> Iterator[Backend]:
    with opened(place) as backend:
        yield backend


@pytest.fixture(params=PLACES)
def sole_place(
    request: pytest.FixtureRequest, tmp_path: Path, servers: Servers
) -> Iterator[Place]:
    """Where a log is kept that only one server may use."""
    with leaving_nothing(tmp_path), PLACES[request.param](tmp_path, servers) as place:
        yield place


@pytest.fixture(params=SHARED_PLACES)
def shared_place(
    request: pytest.FixtureRequest, tmp_path: Path, servers: Servers
) -> Iterator[Place]:
    """Where a log is kept that several servers may use."""
    with leaving_nothing(tmp_path), SHARED_PLACES[request.param](tmp_path, servers) as place:
        yield place


@pytest.fixture
def shared(shared_place: Place) -> Iterator[Backend]:
    with opened(shared_place) as backend:
        yield backend


@pytest.fixture
def other(shared_place: Place, shared: Backend) -> Iterator[Backend]:
    """Another server's backend beside `shared`."""
    with opened(shared_place) as backend:
        yield backend


@pytest.fixture
def server(servers: Callable[[str], PostgresqlServer]) -> PostgresqlServer:
    """Give the PostgreSQL of the session; modules that break theirs have one of their own."""
    return servers("postgresql")


@pytest.fixture
def database(server: PostgresqlServer | MariadbServer) -> Iterator[str]:
    """Give the name of an empty database on the module's server."""
    with database_on(server) as name:
        yield name
