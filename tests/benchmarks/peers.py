"""byre, kine and etcd on loopback with fresh data on a real disk, to be measured side by side."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.databases import PostgresqlServer
from tests.support.mariadb import MariadbServer
from tests.support.running import Server, free_port
from tests.support.servers import Binaries

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("kine", "etcd", "byre")
DATASTORES = ("sqlite", "postgresql", "mariadb")
_SQLITE = "_journal_mode=WAL&_busy_timeout=30000&_synchronous=NORMAL&_txlock=immediate"
_CONNECTIONS = "500"
"""kine opens one a request under way; the databases' own defaults would refuse some."""


class Peer(NamedTuple):
    """A server under measurement."""

    address: str
    pid: int
    directory: Path


class Command(NamedTuple):
    """What starts a server, in the project's folder, and where it will listen."""

    address: str
    argv: list[str]


@contextmanager
def running(datastore: str, data: Path, *, warm: bool = False) -> Iterator[Mapping[str, Peer]]:
    """Run one of each over `datastore`, and give them by name.

    Args:
        datastore: Which database kine and byre are on; etcd has its own file.
        data: An empty folder on a real disk.
        warm: Whether kine keeps its connections to the database, which it does not by itself.
    """
    with ExitStack() as stack:
        commands = stack.enter_context(prepared(datastore, data, warm=warm))
        peers: dict[str, Peer] = {}
        for name, (address, argv) in commands.items():
            server = Server(name, argv, address, f"http://{address}", data, cwd=ROOT)
            stack.callback(server.close)
            server.start()
            assert server.process is not None
            peers[name] = Peer(address, server.process.pid, data / name)
        yield peers


@contextmanager
def prepared(datastore: str, data: Path, *, warm: bool = False) -> Iterator[Mapping[str, Command]]:
    """Run the database only, and give what starts each server. Arguments as of `running`."""
    ports = {name: free_port() for name in NAMES}
    with _database(datastore, data) as sources:
        for name in NAMES:
            (data / name).mkdir(exist_ok=True, mode=0o700)
        commands = _commands(Binaries(), data, sources, ports, warm=warm)
        yield {name: Command(f"127.0.0.1:{ports[name]}", argv) for name, argv in commands.items()}


@contextmanager
def _database(kind: str, data: Path) -> Iterator[tuple[str, str]]:
    """Run the database server, on disk; give kine's data source and byre's."""
    if kind == "sqlite":
        kine = f"sqlite://{data}/kine/state.db?{_SQLITE}&_stmt_cache_size=20&cache=shared"
        yield kine, f"sqlite:///{data}/byre/state.db"
        return
    server = start_database(kind, data)
    try:
        kine = f"postgres://byre@127.0.0.1:{server.port}/kine?sslmode=disable"
        if kind == "mariadb":
            kine = f"mysql://byre@tcp(127.0.0.1:{server.port})/kine"
        yield kine, server.url("byre")
    finally:
        server.close()


def start_database(kind: str, data: Path) -> PostgresqlServer | MariadbServer:
    """Start a database server whose files are on the disk of `data`."""
    data.chmod(0o711)  # the database runs as another user
    settings = {"max_connections" if kind == "postgresql" else "max-connections": _CONNECTIONS}
    server = (
        PostgresqlServer(settings, disk=data)
        if kind == "postgresql"
        else MariadbServer(settings, disk=data)
    )
    server.start()
    return server


def byre_arguments(datastore: str, address: str) -> list[str]:
    """Return the arguments of Python for a server that listens at `address`."""
    return shlex.split(
        f"-m datastore serve --datastore {datastore} --listen-client-urls http://{address} "
        "--watch-progress-notify-interval 5s --log-level error"
    )


def _commands(
    binaries: Binaries,
    data: Path,
    sources: tuple[str, str],
    ports: dict[str, int],
    *,
    warm: bool,
) -> dict[str, list[str]]:
    etcd, peer = f"http://127.0.0.1:{ports['etcd']}", f"http://127.0.0.1:{free_port()}"
    kine, byre = sources
    return {
        "kine": [
            str(binaries.kine),
            *shlex.split(
                f"--listen-address 127.0.0.1:{ports['kine']} --metrics-bind-address 0 --endpoint"
            ),
            kine,
            *(["--datastore-max-idle-connections=500"] if warm else []),
        ],
        "etcd": shlex.split(
            f"{binaries.etcd} --name peer --data-dir {data}/etcd --listen-client-urls {etcd} "
            f"--advertise-client-urls {etcd} --listen-peer-urls {peer} "
            f"--initial-advertise-peer-urls {peer} --initial-cluster peer={peer} "
            "--quota-backend-bytes 8589934592 --watch-progress-notify-interval 5s "
            "--log-level warn"
        ),
        "byre": [sys.executable, *byre_arguments(byre, f"127.0.0.1:{ports['byre']}")],
    }
