"""The server: listeners, their connections, and the end of them all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from datastore.shim.transport.api import (
    Application,
    Http1Connection,
    Limits,
    Stream,
    TlsFiles,
    Unary,
)
from datastore.shim.transport.http2.connection import Connection
from datastore.shim.transport.http2.headers import Methods
from datastore.shim.transport.http2.keepalive import HANDSHAKE_SECONDS, Sweeper
from datastore.shim.transport.http2.listeners import bind_tcp, bind_unix
from datastore.shim.transport.http2.plain import serve
from datastore.shim.transport.http2.shared import Shared
from datastore.shim.transport.http2.tls import Certificates

_BACKLOG: Final = 1024
_ROUND_TRIP_SECONDS: Final = 1.0
"""How long a client may take to hear that the server is going to end."""
_CLOSE_SECONDS: Final = 1.0
"""How long a client may take to read the last of its answers."""


class Http2Transport:
    """A server for RPCs of raw bytes, by an HTTP/2 protocol of our own on the event loop."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._methods = Methods()
        self._shared = Shared(limits or Limits(), self._methods)
        self._connections: set[Connection] = set()
        self._sweeper = Sweeper(self._shared, self._connections)
        self._servers: list[asyncio.Server] = []
        self._sockets: list[Path] = []

    def http1(self, make: Callable[[], Http1Connection]) -> None:
        """Have HTTP/1.1 served on the same ports; to be said before they are listened on."""
        self._shared.http1 = make

    def plain(self, application: Application) -> None:
        self._methods.plain = functools.partial(serve, application)

    def unary(self, path: str, handler: Unary) -> None:
        self._methods.unary[path] = handler

    def stream(self, path: str, handler: Stream) -> None:
        self._methods.stream[path] = handler

    async def listen(self, url: str, tls: TlsFiles | None = None) -> str:
        """Bind `url` and serve it at once; OSError when it cannot be bound.

        A unix socket is made with mode 0600.
        """
        parts = urlsplit(url)
        context: ssl.SSLContext | None = None
        if parts.scheme.endswith("s"):
            if tls is None:
                raise OSError(f"{parts.scheme} needs a certificate and a key")
            protocols = ["h2", "http/1.1"] if self._shared.http1 is not None else ["h2"]
            context = Certificates(tls, protocols).context()
        if parts.scheme.startswith("unix"):
            path = Path(parts.path)
            await self._serve(bind_unix(path), context)
            self._sockets.append(path)
            return url
        listeners = bind_tcp(parts.hostname or "", parts.port or 0)
        port = listeners[0].getsockname()[1]
        for listener in listeners:
            await self._serve(listener, context)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{parts.scheme}://{host}:{port}"

    async def _serve(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        loop = self._shared.loop
        secure = context is not None
        make = loop.create_server
        if listener.family == socket.AF_UNIX:
            make = loop.create_unix_server  # type: ignore[assignment] # of the arguments used
        self._servers.append(
            await make(
                self._connect,
                sock=listener,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if secure else None,
                ssl_shutdown_timeout=_CLOSE_SECONDS if secure else None,
                backlog=_BACKLOG,
            )
        )
        self._sweeper.start()

    def _connect(self) -> Connection:
        return Connection(self._shared, self._connections)

    async def drain(self, grace: float) -> None:
        """Take no new calls, let those under way finish for `grace` seconds, then end them.

        Clients are told twice, so that no call is lost that was on its way (RFC 9113 section
        6.8): first that an end is near, and when they have heard that, which call is the last.
        """
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in list(self._connections):
            connection.announce_end()
        if grace > 0:
            await self._wait(min(grace, _ROUND_TRIP_SECONDS))
            for connection in list(self._connections):
                connection.end()
            await self._wait(grace)
        for connection in list(self._connections):
            connection.end_now()
        await self._wait(_CLOSE_SECONDS)
        for connection in list(self._connections):
            connection.abort()
        await self._wait(_CLOSE_SECONDS)
        if self._shared.tasks:
            await asyncio.wait(self._shared.tasks, timeout=_CLOSE_SECONDS)
        self._sweeper.stop()
        self._shared.deadlines.close()
        for path in self._sockets:
            path.unlink(missing_ok=True)
        self._sockets.clear()

    async def _wait(self, seconds: float) -> None:
        """Wait until no connection is left, at most for so long."""
        left = self._shared.left
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._connections:
                    left.clear()
                    await left.wait()

    def stats(self) -> Mapping[str, int]:
        """Return counters: connections, streams, calls, resets, bytes; `pending` bytes wait."""
        shared = self._shared
        return {
            **shared.stats,
            "calls": shared.calls,
            "pending": shared.ledger.pending,
            "received": shared.ledger.received,
            "sent": shared.ledger.sent,
        }
