"""Control planes on every datastore, each started once a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.controlplane import ControlPlane
from tests.support.databases import DatabaseServer, database_on
from tests.support.etcd import etcd
from tests.support.running import Server, free_port
from tests.support.servers import Binaries

DATASTORES = ("sqlite", "postgresql", "mariadb", "managed-etcd", "external-etcd")

EVENT_SECONDS = 6
QUICK_ARGUMENTS = {
    # Compaction and the end of events within the patience of a test.
    "etcd-compaction-interval": "5s",
    "event-ttl": f"{EVENT_SECONDS}s",
}


@dataclass
class Stage:
    """A control plane and how to crash its store."""

    plane: ControlPlane
    kind: str
    external: Server | None = None

    @property
    def store(self) -> str:
        """The name of the store's process."""
        return {"managed-etcd": "etcd", "external-etcd": ""}.get(self.kind, "datastore")


def _storage(kind: str, directory: Path, binaries: Binaries) -> tuple[Mapping[str, Any], Any]:
    if kind == "sqlite":
        return {"type": "kine"}, None
    if kind == "managed-etcd":
        urls = {
            "listen-client-urls": f"https://127.0.0.1:{free_port()}",
            "listen-peer-urls": f"https://127.0.0.1:{free_port()}",
        }
        return {"type": "etcd", "etcd": {"binary": str(binaries.etcd), "extraArgs": urls}}, None
    server = etcd(binaries.etcd, directory)
    cluster = {"endpoints": [server.http], "etcdPrefix": "/some/where"}
    return {"type": "etcd", "etcd": {"externalCluster": cluster}}, server


@pytest.fixture(scope="module", params=DATASTORES)
def stage(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    binaries: Binaries,
    servers: Callable[[str], DatabaseServer],
) -> Iterator[Stage]:
    """Run a whole control plane for the tests of a module."""
    directory = tmp_path_factory.mktemp(request.param)
    storage: Mapping[str, Any]
    with ExitStack() as stack:
        if request.param in {"postgresql", "mariadb"}:
            database = servers(request.param)
            url = database.url(stack.enter_context(database_on(database)))
            storage, server = {"type": "kine", "kine": {"dataSource": url}}, None
        else:
            storage, server = _storage(request.param, directory, binaries)
        if server:
            stack.enter_context(closing(server))
            server.start()
        plane = ControlPlane(directory, storage, extraArgs=QUICK_ARGUMENTS)
        stack.enter_context(closing(plane))
        plane.start()
        yield Stage(plane, request.param, server)


@pytest.fixture
def plane(stage: Stage) -> ControlPlane:
    """The control plane alone."""
    return stage.plane


@pytest.fixture
def make_plane(tmp_path: Path) -> Iterator[Callable[..., ControlPlane]]:
    """Make control planes for one test; what they leave behind is removed."""
    with ExitStack() as stack:

        def make(storage: Mapping[str, Any], **api: Any) -> ControlPlane:
            made = ControlPlane(tmp_path, storage, **api)
            stack.enter_context(closing(made))
            return made

        yield make
