"""Several servers on one database, each with a network of its own that can be broken."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.auth import QUICK
from tests.support.databases import SERVERS, PostgresqlServer
from tests.support.mariadb import MariadbServer
from tests.support.proxy import Mode, Proxy
from tests.support.running import Server, eventually
from tests.support.shim import shim_on

DATABASE = "cluster"
NetworkDatabase = PostgresqlServer | MariadbServer


@dataclass
class Node:
    """One server and its way to the database."""

    server: Server
    proxy: Proxy
    position_file: Path


@dataclass
class Cluster:
    """A database and the servers on it."""

    database: NetworkDatabase
    nodes: Sequence[Node]

    @property
    def targets(self) -> list[str]:
        """Where clients reach the servers."""
        return [node.server.target for node in self.nodes]

    def beside(self, node: Node) -> str:
        """Return where clients reach another server than this one."""
        return next(other.server.target for other in self.nodes if other is not node)

    def start(self) -> None:
        """Start all servers at once, as after a power cut."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda node: node.server.start(), self.nodes))

    def crash_database(self) -> None:
        """End the database at once, and start it again."""
        self.database.stop(signal.SIGKILL)
        eventually(self._starts, "what is left of the database's processes has gone")

    def freeze(self) -> None:
        """Let every server's way to the database end in silence."""
        for node in self.nodes:
            node.proxy.turn(Mode.HALF_OPEN)

    def thaw(self) -> None:
        """Let what was held go through, late."""
        for node in self.nodes:
            node.proxy.turn(Mode.PASS)

    def back_up(self, directory: Path) -> None:
        """Copy the database's files, as a replica has them that gets no further."""
        self.database.stop()
        shutil.copytree(self.database.data, directory, symlinks=True, dirs_exist_ok=True)
        self.database.start()

    def promote(self, directory: Path) -> None:
        """Lose the database, and go on with such a copy."""
        self.database.stop(signal.SIGKILL)
        owner = self.database.data.stat()
        eventually(self._is_removed, "what is left of the database's processes has gone")
        shutil.copytree(directory, self.database.data, symlinks=True)
        for path in (self.database.data, *self.database.data.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        self.database.start()

    def _is_removed(self) -> bool:
        shutil.rmtree(self.database.data, ignore_errors=True)
        return not self.database.data.exists()

    def _starts(self) -> bool:
        try:
            self.database.start()
        except AssertionError:
            return False
        return True


@contextmanager
def running_cluster(kind: str, directory: Path, size: int = 3) -> Iterator[Cluster]:
    """Run servers on a database of their own."""
    database = SERVERS[kind]()
    assert isinstance(database, NetworkDatabase)
    try:
        database.start()
        with cluster_on(database, directory, size) as cluster:
            cluster.start()
            yield cluster
    finally:
        database.close()


@contextmanager
def cluster_on(database: NetworkDatabase, directory: Path, size: int = 3) -> Iterator[Cluster]:
    """Give a cluster whose servers are not started yet."""
    with ExitStack() as stack:
        nodes = []
        for number in range(size):
            proxy = stack.enter_context(Proxy(("127.0.0.1", database.port)))
            position_file = directory / f"position-{number}.json"
            flags = [
                f"--name=server-{number}",
                f"--position-file={position_file}",
                "--watch-progress-notify-interval=200ms",
                QUICK,
            ]
            url = database.url(DATABASE).replace(f":{database.port}/", f":{proxy.port}/")
            server = shim_on(url, directory, f"server-{number}", flags)
            stack.callback(server.close)
            nodes.append(Node(server, proxy, position_file))
        yield Cluster(database, nodes)
