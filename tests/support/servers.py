"""The programs tests run against, built on demand, and a real etcd that is up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.etcd import etcd
from tests.support.running import Server
from tests.tools.build import obtain


class Binaries:
    """Paths of programs; asking for one that is missing builds it, or fails the test."""

    @property
    def etcd(self) -> Path:
        """The etcd server."""
        return obtain("etcd")

    @property
    def etcdctl(self) -> Path:
        """Its command line client."""
        return obtain("etcdctl")

    @property
    def etcdutl(self) -> Path:
        """Its offline tool."""
        return obtain("etcdutl")

    @property
    def kine(self) -> Path:
        """Upstream kine."""
        return obtain("kine")

    @property
    def porcupine_check(self) -> Path:
        """The linearizability checker of tests/tools/porcupine."""
        return obtain("porcupine-check")

    @property
    def h2spec(self) -> Path:
        """The conformance tests for HTTP/2 servers."""
        return obtain("h2spec")

    @property
    def grpc_client(self) -> Path:
        """The client of tests/tools/grpcclient."""
        return obtain("grpc-client")

    @property
    def clientv3_check(self) -> Path:
        """The programs of tests/tools/clientv3."""
        return obtain("clientv3-check")

    @property
    def load(self) -> Path:
        """The closed-loop clients of tests/tools/load."""
        return obtain("load")


@pytest.fixture(scope="session")
def binaries() -> Binaries:
    """Give the paths of the programs under test and of their tools."""
    return Binaries()


@pytest.fixture
def etcd_server(binaries: Binaries, tmp_path: Path) -> Iterator[Server]:
    """Run a real etcd with an empty store, for this test alone."""
    server = etcd(binaries.etcd, tmp_path)
    server.start()
    yield server
    server.close()
