"""A throwaway PgBouncer in transaction mode before a PostgreSQL server."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from datastore.dsn import Access, Dsn, Target, to_target
from tests.support.databases import READY_SECONDS, USER, Account, PostgresqlServer
from tests.support.quick_disk import make_directory
from tests.support.running import free_port
from tests.tools.databases import obtain

_SETTINGS = """
[databases]
* = host={host} port={server_port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 200
server_login_retry = 1
logfile = {log}
pidfile = {directory}/pid
"""


class PgBouncer:
    """A pooler; every database of its server is reached under its own name."""

    def __init__(self, server: PostgresqlServer) -> None:
        self.server = server
        self._holder = make_directory()
        self.directory = Path(self._holder.name).resolve()
        self.account = Account("postgres")
        self.port = free_port()
        self.log = self.directory / "log"
        settings = self.directory / "settings.ini"
        settings.write_text(
            _SETTINGS.format(
                host="127.0.0.1",
                server_port=server.port,
                user=USER,
                port=self.port,
                log=self.log,
                directory=self.directory,
            )
        )
        settings.chmod(0o644)
        self.account.own(self.directory)
        argv: list[str | Path] = [obtain("pgbouncer"), "-q", settings]
        self._process: subprocess.Popen[bytes] = self.account.spawn(
            argv, self.directory / "output"
        )
        self._await()

    def _await(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                with psycopg.connect(self.url("postgres"), connect_timeout=5) as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError:
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)
            else:
                return

    def url(self, database: str) -> str:
        """Return a database's URL through the pooler."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def target(self, database: str, *, listen: bool = False) -> Target:
        """Return a database's target, with a direct one to listen on if wanted."""
        direct = Dsn(self.server.url(database)) if listen else None
        return to_target(Dsn(self.url(database)), Access(listen=direct))

    def close(self) -> None:
        """Stop and remove everything."""
        self._process.terminate()
        self._process.wait(READY_SECONDS)
        self._holder.cleanup()


@contextmanager
def pgbouncer_before(server: PostgresqlServer) -> Iterator[PgBouncer]:
    """Run a pooler before `server`."""
    pooler = PgBouncer(server)
    try:
        yield pooler
    finally:
        pooler.close()
