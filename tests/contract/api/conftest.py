"""Every case runs on a real etcd and on each backend of the shim."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.auth import QUICK, Auth, forget_all, logged_in
from tests.support.client import Client
from tests.support.divergences import DIVERGENCES, find
from tests.support.etcd import etcd
from tests.support.running import Listen, Server
from tests.support.servers import Binaries
from tests.support.shim import shim_on

SERVERS = os.environ.get(
    "BYRE_TEST_SERVERS", "etcd,memory,memory-grpcio,sqlite,postgresql,mariadb"
).split(",")
Launch = Callable[..., Server]


def pytest_report_header() -> list[str]:
    """Show the table of divergences."""
    return [
        f"diverges on {'/'.join(sorted(entry.servers))}: {entry.test}: {entry.reason}"
        for entry in DIVERGENCES
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect the known divergences to fail, and nothing else."""
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("kind")  # type: ignore[attr-defined]
        if not isinstance(name, str):
            continue  # no server; other tests have other kinds
        entry = find(getattr(item, "originalname", item.name), name)
        if entry is not None:
            reason = f"{entry.reason} ({entry.link})"
            item.add_marker(pytest.mark.xfail(reason=reason, run=entry.run, strict=True))


@pytest.fixture(params=SERVERS, scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """Say which server this case runs on: a backend, with `-` and a transport if not the usual."""
    return str(request.param)


@pytest.fixture(scope="session")
def launch(
    binaries: Binaries,
    stores: Callable[[str, Path], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Server]]:
    """Start servers; all end with the session."""
    started: list[Server] = []

    def start(kind: str, *flags: str, listen: Listen | None = None) -> Server:
        directory = tmp_path_factory.mktemp(kind)
        backend, _, transport = kind.partition("-")
        if transport:
            flags = (f"--transport={transport}", *flags)
        server = (
            etcd(binaries.etcd, directory, flags, listen)
            if kind == "etcd"
            else shim_on(stores(backend, directory), directory, kind, flags, listen)
        )
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture(scope="session")
def standing(launch: Launch) -> Callable[[str], Server]:
    """Give the one server of a kind that most cases share."""
    running: dict[str, Server] = {}

    def get(kind: str) -> Server:
        if kind not in running:
            running[kind] = launch(kind, "--watch-progress-notify-interval=200ms")
        return running[kind]

    return get


@pytest.fixture(scope="session", autouse=True)
async def one_loop() -> AsyncIterator[None]:
    """Keep one event loop for all cases: grpc.aio does not survive a change of loops well."""
    yield  # noqa: PT022 - a fixture that is torn down late is what keeps the loop


@pytest.fixture
async def server(kind: str, standing: Callable[[str], Server]) -> AsyncIterator[Server]:
    """Give the shared server: keys of a case live under `prefix`, and its leases end with it.

    A lease that expired later would write in the middle of another case.
    """
    shared = standing(kind)
    yield shared
    async with Client(shared.target) as connection:
        for lease in await connection.leases():
            await connection.revoke(lease)


@pytest.fixture
def fresh(kind: str, launch: Launch) -> Iterator[Server]:
    """Give a server with an empty store, for this case alone."""
    server = launch(kind)
    yield server
    server.close()


@pytest.fixture(scope="session")
def guarded(kind: str, launch: Launch) -> Server:
    """Give the server that cases of auth share: no other may be shut out by them."""
    return launch(kind, QUICK)


@pytest.fixture
async def auth(guarded: Server) -> AsyncIterator[Auth]:
    """Give the Auth service of that server, with nobody in it and auth off."""
    async with Client(guarded.target) as connection:
        yield Auth(connection)
    await forget_all(guarded)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[Server], Auth]]:
    """Give what connects to the Auth service of any server."""
    async with AsyncExitStack() as stack:
        clients: list[Client] = []

        def to(server: Server) -> Auth:
            clients.append(Client(server.target))
            stack.push_async_exit(clients[-1])
            return Auth(clients[-1])

        yield to


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    """Connect to the shared server."""
    async with Client(server.target) as connection:
        yield connection


@pytest.fixture
async def high(client: Client) -> bytes:
    """Give a prefix that sorts behind all other keys, and nothing there."""
    await client.delete(b"\xff\xff\xff", b"\0")
    return b"\xff\xff\xff"


@pytest.fixture
def prefix() -> bytes:
    """Give a case keys of its own."""
    return f"{uuid.uuid4().hex}/".encode()


@pytest.fixture
async def as_user(guarded: Server, auth: Auth) -> AsyncIterator[Callable[..., Any]]:
    """Give what adds a user with permissions, enables auth once, and connects as that user."""
    async with AsyncExitStack() as stack:

        async def connect(*ranges: tuple[int, bytes, bytes], name: str = "alice") -> Client:
            await auth.user(name, *ranges)
            if not auth.client.metadata:
                auth.client.metadata = (("token", await auth.enable_with_root()),)
            return await stack.enter_async_context(logged_in(guarded, name))

        yield connect
