"""HTTP/1.1: the pages /health, /livez, /readyz, /version, /metrics, and who serves them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from datastore.shim.backends.api import BackendError
from datastore.shim.errors import ShimError
from datastore.shim.health import Health, State
from datastore.shim.metrics import CONTENT_TYPE, Metrics
from datastore.shim.mvcc.auth import SERVER
from datastore.shim.mvcc.ops import Range
from datastore.shim.reader import Reader
from datastore.shim.replica import Replica
from datastore.shim.rpc.maintenance import Release
from datastore.shim.transport.api import PEER, Application, Http1Connection, TlsFiles
from datastore.shim.transport.http2.peer import find_peer

READ_SECONDS: Final = 5.0
_KEEPALIVE_SECONDS: Final = 15
_IDLE_SECONDS: Final = 300
"""How long a client may keep a connection for its next request. etcd sets no bound."""
_ALARMS: Final = {1: "NOSPACE", 2: "CORRUPT"}


class Checks:
    """The questions behind the health endpoints; each answers with a reason, or with nothing."""

    def __init__(self, health: Health, replica: Replica, reader: Reader) -> None:
        self._health = health
        self._replica = replica
        self._reader = reader

    def alive(self) -> str:
        """Say why the process had better be restarted: never because the database is away."""
        return self._health.reason if self._health.state is State.FAILED else ""

    def alarms(self, excluded: Sequence[str]) -> str:
        """Say which alarm is active."""
        names = (_ALARMS[alarm.kind] for alarm in self._replica.store.alarms)
        return next((f"ALARM {name}" for name in names if name not in excluded), "")

    async def readable(self, *, serializable: bool) -> str:
        """Say why a key cannot be read, by reading one."""
        op = Range(b"health", count_only=True, serializable=serializable)
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._reader.range(op, SERVER)
        except TimeoutError:
            return "RANGE ERROR:etcdserver: request timed out"
        except (ShimError, BackendError) as error:
            return f"RANGE ERROR:{error}"
        return ""


class Pages:
    """The endpoints, as etcd answers them."""

    def __init__(self, checks: Checks, metrics: Metrics, release: Release) -> None:
        self._checks = checks
        self._metrics = metrics
        self._release = release

    def application(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/health", self.health),
                Route("/version", self.version),
                Route("/livez", self.livez),
                Route("/livez/{check}", self.livez),
                Route("/readyz", self.readyz),
                Route("/readyz/{check}", self.readyz),
                Route("/metrics", self.metrics),
            ],
            exception_handlers={404: _not_found},
        )

    async def health(self, request: Request) -> Response:
        """Answer as etcd's /health: alarms, then a read."""
        excluded = request.query_params.getlist("exclude")
        serializable = request.query_params.get("serializable") == "true"
        reason = (
            self._checks.alive()
            or self._checks.alarms(excluded)
            or await self._checks.readable(serializable=serializable)
        )
        status = 503 if reason else 200
        return JSONResponse({"health": str(not reason).lower(), "reason": reason}, status)

    async def version(self, request: Request) -> Response:
        """Answer which API this is; kubeadm and Patroni ask."""
        release = self._release
        return JSONResponse(
            {
                "etcdserver": release.version,
                "etcdcluster": release.storage,
                "storage": release.storage,
            }
        )

    async def livez(self, request: Request) -> Response:
        """Answer whether the process is of any use, which does not depend on the database."""
        return _verdict(
            request,
            {
                "alive": self._checks.alive(),
                "serializable_read": await self._checks.readable(serializable=True),
            },
        )

    async def readyz(self, request: Request) -> Response:
        """Answer whether a linearizable read succeeds."""
        return _verdict(
            request,
            {
                "data_corruption": self._checks.alive(),
                "serializable_read": await self._checks.readable(serializable=True),
                "linearizable_read": await self._checks.readable(serializable=False),
            },
        )

    async def metrics(self, request: Request) -> Response:
        """Answer with Prometheus' text form."""
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)


class HttpServer:
    """Serves HTTP in the loop of the caller.

    Args:
        pages: What is served on listeners of its own.
        front: What is served on connections of another server's listener.
    """

    def __init__(self, pages: Application, front: Application) -> None:
        self._pages = pages
        self._lent = self._config(front)
        self._servers: list[_Embedded] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._paths: list[Path] = []

    async def listen(self, url: str, tls: TlsFiles | None) -> str:
        """Bind `url` and serve it; OSError when it cannot be bound. Return the bound URL."""
        parts = urlsplit(url)
        if parts.scheme.startswith("unix"):
            listener = self._bind_unix(Path(parts.path))
        else:
            listener = _bind_tcp(parts.hostname or "", parts.port or 0)
            url = f"{parts.scheme}://{_host(parts.hostname or '')}:{listener.getsockname()[1]}"
        secure = tls if parts.scheme.endswith("s") else None
        config = self._config(
            self._pages,
            ssl_certfile=secure.cert if secure else None,
            ssl_keyfile=secure.key if secure else None,
            ssl_ca_certs=str(secure.trusted_ca) if secure and secure.trusted_ca else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if secure and secure.require else ssl.CERT_NONE,
        )
        server = _Embedded(config)
        self._servers.append(server)
        self._tasks.append(asyncio.create_task(server.serve([listener])))
        return url

    def connect(self) -> Http1Connection:
        """Return what serves a connection of another server's listener."""
        return _Lent(self._lent, ServerState(), {})

    def _config(self, application: Application, **tls: Any) -> uvicorn.Config:
        return uvicorn.Config(
            application,
            proxy_headers=False,
            loop="none",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=_IDLE_SECONDS,
            **tls,
        )

    async def stop(self) -> None:
        """Stop serving and take the sockets away."""
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._unlink()

    def _bind_unix(self, path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(path))
        except OSError:
            listener.close()
            raise
        path.chmod(0o600)
        self._paths.append(path)
        return listener

    def _unlink(self) -> None:
        for path in self._paths:
            path.unlink(missing_ok=True)


class _Lent(H11Protocol):
    """A connection of another server's listener; its requests say who is at the other end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn
        super().connection_made(transport)
        _keep_alive(transport.get_extra_info("socket"))
        peer, serve = find_peer(transport), self.app

        async def serve_peer(scope: Any, receive: Any, send: Any) -> None:
            await serve({**scope, PEER: peer}, receive, send)

        self.app = serve_peer

    @property
    def busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


class _Embedded(uvicorn.Server):
    """uvicorn without its signal handlers: the process has one owner of signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind_tcp(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _keep_alive(wire: socket.socket) -> None:
    """Have the kernel ask whether a silent client is still there, as Go does for etcd."""
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if wire.family != socket.AF_UNIX:
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            wire.setsockopt(socket.IPPROTO_TCP, option, _KEEPALIVE_SECONDS)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _not_found(_request: Request, _error: Exception) -> Response:
    return _missing()


def _missing() -> Response:
    return PlainTextResponse("404 page not found\n", 404)


def _verdict(request: Request, reasons: Mapping[str, str]) -> Response:
    excluded = set(request.query_params.getlist("exclude"))
    wanted = [request.path_params["check"]] if "check" in request.path_params else reasons
    if not reasons.keys() >= set(wanted):
        return _missing()
    checked = {name: reasons[name] for name in wanted if name not in excluded}
    lines = [
        f"[-]{name} failed: {reason}" if reason else f"[+]{name} ok"
        for name, reason in checked.items()
    ]
    if any(checked.values()):
        return PlainTextResponse("\n".join([*lines, ""]), 503)
    if "verbose" in request.query_params:
        return PlainTextResponse("\n".join([*lines, "ok", ""]))
    return PlainTextResponse("ok\n")
