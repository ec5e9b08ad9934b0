"""Several servers on one database, each with a network of its own that can be broken."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.databases import PostgresqlServer
from tests.support.proxy import Proxy
from tests.support.running import Server, eventually
from tests.support.shim import shim_on

DATABASE = "cluster"


@dataclass
class Node:
    """One server and its way to the database."""

    server: Server
    proxy: Proxy
    position_file: Path


@dataclass
class Cluster:
    """A database and the servers on it."""

    database: PostgresqlServer
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

    def _starts(self) -> bool:
        try:
            self.database.start()
        except AssertionError:
            return False
        return True


@contextmanager
def cluster_on(database: PostgresqlServer, directory: Path, size: int = 3) -> Iterator[Cluster]:
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
            ]
            url = database.url(DATABASE).replace(f":{database.port}/", f":{proxy.port}/")
            server = shim_on(url, directory, f"server-{number}", flags)
            stack.callback(server.close)
            nodes.append(Node(server, proxy, position_file))
        yield Cluster(database, nodes)
