"""Throwaway database servers: one of a kind for a test session, with a database for each test.

They run as another user than root, in a directory in memory, and listen on loopback and on a
socket in that directory. A test that stops or breaks a server starts one of its own.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGQUIT, SIGSTOP
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import psycopg
import pytest

from datastore.dsn import Dsn, Target, to_target
from tests.support.quick_disk import make_directory
from tests.support.running import free_port, suspend
from tests.support.shim import local_store
from tests.tools.databases import obtain

READY_SECONDS = 30.0
USER = "byre"


class Account:
    """Whom a server runs as: itself, or where that is root, the user of its package."""

    def __init__(self, name: str) -> None:
        self.entry = pwd.getpwnam(name) if os.geteuid() == 0 else None

    def own(self, path: Path) -> None:
        """Give a directory to the user, with a way to it for nobody else."""
        path.chmod(0o700)
        if self.entry is not None:
            os.chown(path, self.entry.pw_uid, self.entry.pw_gid)

    def own_file(self, path: Path) -> None:
        """Give a file to the user."""
        if self.entry is not None:
            os.chown(path, self.entry.pw_uid, self.entry.pw_gid)

    def run(self, argv: Sequence[str | Path]) -> None:
        """Run a program to its end."""
        done = subprocess.run(
            argv, cwd="/", capture_output=True, text=True, check=False, **self._as_user()
        )
        assert not done.returncode, f"{argv[0]}: {done.stdout}{done.stderr}"

    def spawn(self, argv: Sequence[str | Path], log: Path) -> subprocess.Popen[bytes]:
        """Start a program; what it prints goes to `log`."""
        with log.open("ab") as output:
            return subprocess.Popen(
                argv, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                **self._as_user(),
            )  # fmt: skip

    def _as_user(self) -> dict[str, Any]:
        if self.entry is None:
            return {}
        return {"user": self.entry.pw_uid, "group": self.entry.pw_gid, "extra_groups": []}


class ServerProcess:
    """The first process of a server, once it has been started."""

    STOP: int
    """The signal that stops it in order."""
    _process: subprocess.Popen[bytes] | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the server's first process."""
        assert self._process is not None
        if number == SIGSTOP:
            suspend(self._process.pid)
        else:
            self._process.send_signal(number)

    def stop(self, number: int | None = None) -> None:
        """Stop in order, or with a signal that leaves a crash behind."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(SIGCONT)
                self._process.send_signal(self.STOP if number is None else number)
            self._process.wait(READY_SECONDS)
            self._process = None


class PostgresqlServer(ServerProcess):
    """A PostgreSQL that trusts everybody on this machine. SIGINT disconnects everybody."""

    STOP = SIGINT

    kind = "postgresql"

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        disk: Path | None = None,
        environment: Sequence[str] = (),
    ) -> None:
        """Make an empty server.

        Args:
            settings: Parameters of the server.
            disk: A directory on a disk to be in; in memory where None.
            environment: Variables as env takes them.
        """
        self.environment = environment
        self._holder = make_directory() if disk is None else TemporaryDirectory(dir=disk)
        self.directory = Path(self._holder.name).resolve()
        self.account = Account("postgres")
        self.account.own(self.directory)
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self.port = free_port()
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "max_connections": "200",
            "shared_buffers": "32MB",
            "min_wal_size": "32MB",
            "max_wal_size": "64MB",
            **(settings or {}),
        }
        self.account.run([
            obtain("initdb"), "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync", "--no-instructions", "--wal-segsize=4",
        ])  # fmt: skip

    def start(self) -> None:
        """Start, and return when it answers."""
        settings = [f"--{name}={value}" for name, value in self.settings.items()]
        argv: list[str | Path] = [
            obtain("postgres"),
            "-D",
            self.data,
            "-p",
            str(self.port),
            *settings,
        ]
        if self.environment:
            argv = ["/usr/bin/env", *self.environment, *argv]
        self._process = self.account.spawn(argv, self.log)
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                ended = self._process.poll() is not None
                assert not ended, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)
            else:
                return

    def close(self) -> None:
        """Stop and remove everything."""
        self.stop(SIGQUIT)
        # After a SIGKILL its children take a moment to notice, and write until then.
        for _ in range(100):
            shutil.rmtree(self.directory, ignore_errors=True)
            if not self.directory.exists():
                break
            time.sleep(0.05)
        self.directory.mkdir(exist_ok=True)
        self._holder.cleanup()

    def url(self, database: str, user: str = USER) -> str:
        """Return a database's URL."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def target(self, database: str, user: str = USER, **more: str) -> Target:
        """Return a database's target."""
        query = "&".join(f"{name}={value}" for name, value in more.items())
        return to_target(Dsn(f"{self.url(database, user)}?{query}"))

    def execute(
        self, statement: str, values: Sequence[Any] | None = None, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run a statement as the database's owner of everything."""
        with psycopg.connect(
            host=str(self.directory), port=self.port, user=USER, dbname=database, autocommit=True,
            connect_timeout=5,
        ) as connection:  # fmt: skip
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


class DatabaseServer(Protocol):
    """What all kinds of servers have."""

    kind: str

    def start(self) -> None:
        """Start, and return when it answers."""

    def close(self) -> None:
        """Stop and remove everything."""

    def url(self, database: str, user: str = USER) -> str:
        """Return a database's URL."""

    def target(self, database: str, user: str = USER, **more: str) -> Target:
        """Return a database's target."""

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""


@contextmanager
def database_on(server: DatabaseServer) -> Iterator[str]:
    """Give the name of a database that does not exist yet, and remove it afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    yield name
    server.drop(name)


@contextmanager
def running_postgresql(**settings: str) -> Iterator[PostgresqlServer]:
    """Run a server of the caller's own."""
    server = PostgresqlServer(settings)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def stores(servers: Callable[[str], DatabaseServer]) -> Callable[[str, Path], str]:
    """Give the URL of an empty store of a kind, below a directory where it is a file."""

    def get(kind: str, directory: Path) -> str:
        if kind in {"memory", "sqlite"}:
            return local_store(kind, directory)
        return servers(kind).url(f"test_{secrets.token_hex(6)}")

    return get


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], Any]]:
    """Give the session's server of a kind, started when it is first asked for."""
    started: dict[str, DatabaseServer] = {}

    def get(kind: str) -> DatabaseServer:
        if kind not in started:
            started[kind] = server = _mysql() if kind == "mysql" else SERVERS[kind]()
            server.start()
        return started[kind]

    yield get
    for server in started.values():
        server.close()


def _mariadb() -> DatabaseServer:
    from tests.support.mariadb import MariadbServer

    return MariadbServer()


def _mysql() -> DatabaseServer:
    from tests.support.mariadb import MysqlServer

    return MysqlServer()


SERVERS: Mapping[str, Callable[[], DatabaseServer]] = {
    "postgresql": PostgresqlServer,
    "mariadb": _mariadb,
}
"""Those that tests start and may break."""
