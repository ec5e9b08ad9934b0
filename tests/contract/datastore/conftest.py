"""Every kind of datastore, with what it needs to run."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import anyio
import grpc
import pytest

from datastore.config import parse
from datastore.endpoint import Endpoint
from datastore.errors import NotReady
from datastore.etcdpb import rpc_pb2, rpc_pb2_grpc
from datastore.launch import ProcessSpec
from datastore.paths import Paths
from datastore.probe import probe
from datastore.registry import Datastore
from datastore.resolve import resolve
from tests.support.databases import DatabaseServer, database_on
from tests.support.etcd import etcd
from tests.support.running import Server, free_port
from tests.support.servers import Binaries

T = TypeVar("T")
PATIENCE_SECONDS = 90.0
KINDS = ("sqlite", "postgresql", "mariadb", "managed etcd", "external etcd", "kine")


@dataclass
class Stage:
    """One datastore and the processes that run for it."""

    datastore: Datastore
    paths: Paths
    others: Server | None = None
    """The etcd that someone else runs."""
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def start(self) -> None:
        self.datastore.prepare()
        if self.others:
            self.others.start()
        for spec in self.datastore.processes():
            log = self.paths.data_dir / f"{spec.name}.log"
            with log.open("ab") as output:
                self.running.append(spawn(spec, output.fileno()))
            await self.until_ready(spec, log)

    async def until_ready(self, spec: ProcessSpec, log: Path) -> None:
        assert spec.readiness is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await probe(spec.readiness)
            except NotReady as error:
                if self.running[-1].poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{error}\n{tail(log)}") from error
                await anyio.sleep(0.05)

    def stop(self) -> None:
        for process in reversed(self.running):
            process.terminate()
            process.wait(60)
        self.running.clear()
        if self.others:
            self.others.close()


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer: a machine may be busier than a probe is patient."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await ask()
        except NotReady:
            if time.monotonic() > deadline:
                raise
            await anyio.sleep(0.05)


def tail(log: Path) -> str:
    return log.read_text()[-2000:]


def spawn(spec: ProcessSpec, output: int) -> subprocess.Popen[bytes]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.Popen(
        spec.argv,
        env={**inherited, **spec.environment, **spec.secrets},
        cwd=spec.cwd,
        stdout=output,
        stderr=output,
    )


def key_value(endpoint: Endpoint) -> tuple[grpc.Channel, rpc_pb2_grpc.KVStub]:
    """Return a channel to an endpoint as kube-apiserver would open it."""
    scheme, _, place = endpoint.urls[0].partition("://")
    if scheme == "unix":
        channel = grpc.insecure_channel(f"unix:{place}")
    elif endpoint.tls is None:
        channel = grpc.insecure_channel(place)
    else:
        tls = endpoint.tls
        credentials = grpc.ssl_channel_credentials(
            tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes()
        )
        channel = grpc.secure_channel(place, credentials)
    return channel, rpc_pb2_grpc.KVStub(channel)


def create(stub: rpc_pb2_grpc.KVStub, key: bytes, value: bytes) -> int:
    """Create a key as kube-apiserver does, and return its revision."""
    compare = rpc_pb2.Compare(key=key, target=rpc_pb2.Compare.MOD, mod_revision=0)
    put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=value))
    response = stub.Txn(rpc_pb2.TxnRequest(compare=[compare], success=[put]), timeout=60)
    assert response.succeeded
    return response.header.revision


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    # A directory of its own: pytest's names are long, and those of sockets must not be.
    with tempfile.TemporaryDirectory(prefix="byre-") as run:
        yield Paths(tmp_path / "data", Path(run) / "run", tmp_path / "cache", tmp_path / "x.yaml")


@pytest.fixture(params=KINDS)
def stage(
    request: pytest.FixtureRequest,
    paths: Paths,
    binaries: Binaries,
    servers: Callable[[str], DatabaseServer],
) -> Iterator[Stage]:
    others = None
    stack = ExitStack()
    match request.param:
        case "sqlite":
            text = "spec: {}"
        case "postgresql" | "mariadb":
            server = servers(request.param)
            url = server.url(stack.enter_context(database_on(server)))
            text = f"spec: {{storage: {{kine: {{dataSource: '{url}'}}}}}}"
        case "kine":
            text = "spec: {storage: {kine: {binary: kine}}}"
        case "managed etcd":
            urls = [f"https://127.0.0.1:{free_port()}" for _ in range(2)]
            text = (
                "spec: {storage: {type: etcd, etcd: {extraArgs: "
                f"{{listen-client-urls: '{urls[0]}', listen-peer-urls: '{urls[1]}'}}}}}}}}"
            )
        case _:
            paths.data_dir.mkdir()
            others = etcd(binaries.etcd, paths.data_dir)
            text = (
                "spec: {storage: {type: etcd, etcd: {externalCluster: "
                f"{{endpoints: ['{others.http}'], etcdPrefix: /registry}}}}}}}}"
            )
    found = {"etcd": lambda: binaries.etcd, "kine": lambda: binaries.kine}
    datastore = resolve(parse(text), paths, binary=lambda name: found[name](), environ={})
    with stack:
        one = Stage(datastore, paths, others)
        stack.callback(one.stop)
        yield one
