"""Throwaway MariaDB servers, and a MySQL that somebody else runs."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import pymysql

from datastore.dsn import Dsn, Target, to_target
from tests.support.databases import READY_SECONDS, USER, Account, ServerProcess
from tests.support.quick_disk import make_directory
from tests.support.running import eventually, free_port
from tests.tools.databases import obtain

MYSQL_URL = os.environ.get("BYRE_TEST_MYSQL_URL", "")
"""A MySQL to test against as well, without a database: ``mysql://root@127.0.0.1:3306``."""

_ADMINISTRATOR = f"""
CREATE USER IF NOT EXISTS {USER}@'127.0.0.1';
GRANT ALL ON *.* TO {USER}@'127.0.0.1' WITH GRANT OPTION
"""


class Databases:
    """What tests do to the databases of a server."""

    kind: str

    def url(self, database: str, user: str = USER) -> str:
        """Return a database's URL."""
        raise AssertionError(f"{self.kind} has no URL for {user} and {database}")

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        """Connect as somebody who may do everything."""
        raise AssertionError(f"{self.kind} has no way to {database}")

    def target(self, database: str, user: str = USER, **more: str) -> Target:
        """Return a database's target."""
        query = "&".join(f"{name}={value}" for name, value in more.items())
        return to_target(Dsn(f"{self.url(database, user)}?{query}"))

    def execute(
        self, statement: str, values: Sequence[Any] | None = None, database: str | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a statement as somebody who may do everything."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement, tuple(values) if values is not None else None)
            return list(cursor.fetchall())

    def drop(self, database: str) -> None:
        """Remove a database; who is in a transaction there is thrown out."""
        for (number,) in self.execute(
            "SELECT id FROM information_schema.processlist WHERE db = %s", (database,)
        ):
            with suppress(pymysql.Error):
                self.execute(f"KILL {number}")
        self.execute(f"DROP DATABASE IF EXISTS `{database}`")


class MariadbServer(ServerProcess, Databases):
    """A MariaDB that trusts everybody on this machine."""

    STOP = SIGTERM

    kind = "mariadb"

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        environment: Sequence[str] | None = None,
        disk: Path | None = None,
    ) -> None:
        """Make an empty server.

        Args:
            settings: Options beside those that make it small.
            environment: Variables as env takes them. Where there are any, the server is on disk:
                in memory it maps its log and never syncs it.
            disk: A directory on a disk to be on, too.
        """
        on_disk = environment or disk
        self._holder = tempfile.TemporaryDirectory(dir=disk) if on_disk else make_directory()
        self.directory = Path(self._holder.name).resolve()
        self.account = Account("mysql")
        self.account.own(self.directory)
        self.data = self.directory / "data"
        self.socket = self.directory / "socket"
        self.log = self.directory / "log"
        self.port = free_port()
        self.environment = environment or ()
        self.settings = {
            "bind-address": "127.0.0.1",
            "skip-name-resolve": "ON",
            "performance-schema": "OFF",
            "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": "32M",
            "max-connections": "200",
            **(settings or {}),
        }
        self.account.run([
            obtain("mariadb-install-db"), "--no-defaults", f"--datadir={self.data}",
            "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
        ])  # fmt: skip

    def start(self) -> None:
        """Start, and return when it answers."""
        # One that starts removes the temporary tables of all servers that share the folder.
        argv: list[str | Path] = [
            obtain("mariadbd"), "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.data}",
            f"--socket={self.socket}", f"--port={self.port}", f"--pid-file={self.directory}/pid",
            *(f"--{name}={value}" for name, value in self.settings.items()),
        ]  # fmt: skip
        if self.environment:
            argv = ["/usr/bin/env", *self.environment, *argv]
        self._process = self.account.spawn(argv, self.log)
        # PyMySQL forgets to close a unix socket that it cannot connect.
        eventually(self._listens, f"{self.socket} is there", READY_SECONDS)
        for statement in _ADMINISTRATOR.split(";"):
            self.execute(statement)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def close(self) -> None:
        """Stop and remove everything."""
        self.stop(SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(exist_ok=True)
        self._holder.cleanup()

    def url(self, database: str, user: str = USER) -> str:
        return f"mysql://{user}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        return pymysql.connect(
            unix_socket=str(self.socket), user="root", database=database, autocommit=True,
            read_timeout=READY_SECONDS,
        )  # fmt: skip


class MysqlServer(Databases):
    """A server that somebody else runs, at `MYSQL_URL`."""

    kind = "mysql"

    def __init__(self) -> None:
        self.given = to_target(Dsn(MYSQL_URL))

    def start(self) -> None:
        """Do nothing: it runs."""

    def close(self) -> None:
        """Leave it running."""

    def url(self, database: str, user: str = "") -> str:
        base, _, query = MYSQL_URL.partition("?")
        return f"{base.rstrip('/')}/{database}?{query}".rstrip("?")

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        given = self.given
        return pymysql.connect(
            host=given.hosts[0].name,
            port=given.hosts[0].port,
            user=given.user or None,
            password=given.password.get() if given.password else "",
            database=database,
            autocommit=True,
            read_timeout=READY_SECONDS,
        )


@contextmanager
def running_mariadb(
    settings: Mapping[str, str] | None = None, environment: Sequence[str] | None = None
) -> Iterator[MariadbServer]:
    """Run a server of the caller's own."""
    server = MariadbServer(settings, environment)
    try:
        server.start()
        yield server
    finally:
        server.close()
