"""Echo servers on both transports behind the seam; `grpcio` is the oracle."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.echo_server import EchoServer
from tests.support.http2_client import Client, bystander

TRANSPORTS = ("http2", "grpcio")
GROWTH_BYTES = 64 << 20
SLOWEST_CPU_SECONDS = 0.25
"""For which others may keep the server from a good client's call."""


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Name a transport."""
    return str(request.param)


class Target:
    """A server, and how to connect to it."""

    def __init__(self, server: EchoServer, tls: ssl.SSLContext | None) -> None:
        self.server = server
        self.tls = tls

    def connect(self, *settings: tuple[int, int], **more: Any) -> Client:
        """Connect, say hello with these settings, and wait until the server has answered."""
        client = Client(self.server.url, *settings, tls=self.tls, **more)
        client.ping()
        return client

    def silent(self) -> Client:
        """Connect and say nothing."""
        return Client(self.server.url, tls=self.tls, hello=False)

    def tell(self, what: str) -> int:
        """Return how often the handlers have seen something."""
        with self.connect() as client:
            return int(client.call("Seen", what.encode()).message)


def echo_server(
    transport: str, directory: Path, secure: bool, **limits: Any
) -> tuple[EchoServer, ssl.SSLContext | None]:
    """Return a server that is not started yet, and what a client needs to speak TLS with it."""
    if not secure:
        return EchoServer(transport, directory, **limits), None
    authority = Authority("byre test")
    cert, key = authority.issue(directory, "server")
    files = (cert, key, authority.write(directory))
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.check_hostname = False
    context.load_cert_chain(*authority.issue(directory, "client"))
    context.set_alpn_protocols(["h2"])
    return EchoServer(transport, directory, "https://127.0.0.1:0", files, **limits), context


@pytest.fixture(scope="session")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, bool], Target]]:
    """Start each kind of server once a session, when it is asked for."""
    started: dict[tuple[str, bool], Target] = {}
    with ExitStack() as stack:

        def get(transport: str, secure: bool) -> Target:
            if (transport, secure) not in started:
                directory = tmp_path_factory.mktemp("echo")
                server, context = echo_server(transport, directory, secure)
                started[transport, secure] = Target(stack.enter_context(server), context)
            return started[transport, secure]

        yield get


@pytest.fixture
def target(targets: Callable[[str, bool], Target], transport: str) -> Iterator[Target]:
    """Give a server of each transport."""
    found = targets(transport, False)
    yield found
    found.server.check_log()


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def victim(
    targets: Callable[[str, bool], Target], request: pytest.FixtureRequest
) -> Iterator[Target]:
    """Give our own transport to be attacked: it has to stay small, and to serve others."""
    found = targets("http2", request.param)
    found.server.forget_peak()
    before = found.server.rss_bytes
    with bystander(found.server.url, found.tls, lambda: found.server.cpu_seconds) as good:
        yield found
    assert good.slowest_cpu_seconds < SLOWEST_CPU_SECONDS
    assert found.server.peak_rss_bytes - before < GROWTH_BYTES
    found.server.check_log()
