"""The transport over grpc.aio: generic handlers that pass raw bytes, no serializers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import grpc

from datastore.shim.transport.api import (
    Application,
    Code,
    Http1Connection,
    Limits,
    RpcError,
    Stream,
    TlsFiles,
    Unary,
    settled,
)
from datastore.shim.transport.grpcio_call import GrpcioCall, StreamCall, check_size
from datastore.shim.transport.grpcio_certificates import CertificateFiles

log = logging.getLogger(__name__)

# Above max_recv a request is refused by us, in etcd's words; above this by the C core, in its own.
_CORE_RECV_FACTOR: Final = 16
_MILLISECONDS: Final = 1000
_INT32_MAX: Final = (1 << 31) - 1
_STATUS: Final = {code: next(s for s in grpc.StatusCode if s.value[0] == code) for code in Code}


class GrpcioTransport:
    """A server for RPCs of raw bytes on grpc.aio.

    Every `listen` makes a server of its own: grpc.aio takes no port after the start. The C core
    has no bound on connections, so `Limits.max_connections` is not held here.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        self._servers: list[grpc.aio.Server] = []
        self._sockets: list[Path] = []
        self._stats: Counter[str] = Counter(connections=0, streams=0, calls=0)

    def http1(self, make: Callable[[], Http1Connection]) -> None:
        """Leave it: the C core speaks nothing but HTTP/2."""

    def plain(self, application: Application) -> None:
        """Leave it: the C core speaks nothing but gRPC."""

    def unary(self, path: str, handler: Unary) -> None:
        self._methods[path] = grpc.unary_unary_rpc_method_handler(self._serve_unary(path, handler))

    def stream(self, path: str, handler: Stream) -> None:
        # Server-streaming and bidirectional look the same on the wire.
        self._methods[path] = grpc.stream_stream_rpc_method_handler(
            self._serve_stream(path, handler)
        )

    async def listen(self, url: str, tls: TlsFiles | None = None) -> str:
        """Bind `url` and serve it at once; OSError when it cannot be bound.

        A unix socket is made with mode 0600.
        """
        server = grpc.aio.server(options=_options(self._limits))
        server.add_generic_rpc_handlers((_Methods(self._methods),))
        bound = self._bind(server, url, tls)
        await server.start()
        self._servers.append(server)
        return bound

    async def drain(self, grace: float) -> None:
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.stop(grace) for server in servers))
        self._unlink()

    def _unlink(self) -> None:
        for path in self._sockets:
            path.unlink(missing_ok=True)
        self._sockets.clear()

    def stats(self) -> Mapping[str, int]:
        return self._stats

    def _bind(self, server: grpc.aio.Server, url: str, tls: TlsFiles | None) -> str:
        parts = urlsplit(url)
        if not parts.scheme.startswith("unix"):
            port = _add_port(server, parts.netloc, parts.scheme, tls)
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            return f"{parts.scheme}://{host}:{port}"
        path = Path(parts.path)
        path.unlink(missing_ok=True)
        _add_port(server, f"unix:{path}", parts.scheme, tls)
        path.chmod(0o600)
        self._sockets.append(path)
        return url

    def _serve_unary(
        self, path: str, handler: Unary
    ) -> Callable[[bytes, Any], Awaitable[bytes | None]]:
        stats, max_recv = self._stats, self._limits.max_recv

        async def serve(request: bytes, context: Any) -> bytes | None:  # hot
            stats["calls"] += 1
            try:
                check_size(request, max_recv)
                answer = handler(GrpcioCall(path, context), request)
                return await settled(answer)
            except RpcError as error:
                await _abort(context, error)
            except Exception as error:  # noqa: BLE001 - the boundary that logs
                await _abort(context, _unexpected(path, error))
            return None

        return serve

    def _serve_stream(self, path: str, handler: Stream) -> Callable[[Any, Any], Awaitable[None]]:
        stats, max_recv = self._stats, self._limits.max_recv

        async def serve(_requests: object, context: Any) -> None:
            stats["calls"] += 1
            stats["streams"] += 1
            call = StreamCall(path, context, max_recv)
            try:
                await handler(call)
                await call.flush()
            except RpcError as error:
                await call.flush()
                await _abort(context, error)
            except Exception as error:  # noqa: BLE001 - the boundary that logs
                await _abort(context, _unexpected(path, error))
            finally:
                stats["streams"] -= 1
                call.close()

        return serve


class _Methods(grpc.GenericRpcHandler):
    """Finds a method's handler; an unknown one is answered at once, in grpc-go's words."""

    def __init__(self, methods: Mapping[str, grpc.RpcMethodHandler[bytes, bytes]]) -> None:
        self._methods = methods

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        path = handler_call_details.method
        return self._methods.get(path) or self._unknown_method(path)

    def _unknown_method(self, path: str) -> grpc.RpcMethodHandler[Any, Any]:
        service, _, method = path.removeprefix("/").rpartition("/")
        text = f"unknown service {service}"
        if any(known.startswith(f"/{service}/") for known in self._methods):
            text = f"unknown method {method} for service {service}"

        async def refuse(_requests: object, context: Any) -> None:
            await _abort(context, RpcError(Code.UNIMPLEMENTED, text))

        return grpc.stream_stream_rpc_method_handler(refuse)


def _unexpected(path: str, error: Exception) -> RpcError:
    log.error("call failed in a way that nobody foresaw", extra={"path": path}, exc_info=error)
    return RpcError(Code.UNKNOWN, "etcdserver: internal error")


async def _abort(context: Any, error: RpcError) -> None:
    await context.abort(_STATUS[error.code], error.message, tuple(error.trailers))


def _options(limits: Limits) -> list[tuple[str, int]]:
    """Return the C core's options that make it as lenient as etcd (contract 2.13)."""
    return [
        ("grpc.max_receive_message_length", limits.max_recv * _CORE_RECV_FACTOR),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", min(limits.max_streams, _INT32_MAX)),
        # Strikes are answered with GOAWAY too_many_pings: kube-apiserver pings every 30 s.
        ("grpc.http2.min_ping_interval_without_data_ms", int(limits.min_ping * _MILLISECONDS)),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", min(int(limits.keepalive * _MILLISECONDS), _INT32_MAX)),
        (
            "grpc.keepalive_timeout_ms",
            min(int(limits.keepalive_timeout * _MILLISECONDS), _INT32_MAX),
        ),
        ("grpc.http2.max_pings_without_data", 0),
        # A second server on the same port must fail to bind, not share it.
        ("grpc.so_reuseport", 0),
    ]


def _add_port(server: grpc.aio.Server, address: str, scheme: str, tls: TlsFiles | None) -> int:
    try:
        if scheme.removesuffix("s") == scheme:
            return server.add_insecure_port(address)
        if tls is None:
            raise OSError(f"{scheme} needs a certificate and a key")
        return server.add_secure_port(address, _credentials(tls))
    except RuntimeError as error:
        raise _why(address) from error


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    files = CertificateFiles(tls)
    # The stubs do not know that fetch may return None for "nothing new".
    return grpc.dynamic_ssl_server_credentials(
        files.load(),
        files.fetch,  # type: ignore[arg-type]
        tls.require,
    )


def _why(address: str) -> OSError:
    """Return why `address` cannot be bound, which grpc does not tell, by trying it."""
    if address.startswith("unix:"):
        family, target = socket.AF_UNIX, address.removeprefix("unix:")
    else:
        parts = urlsplit(f"//{address}")
        family = socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET
        target = (parts.hostname or "", parts.port or 0)  # type: ignore[assignment] # by family
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(target)
        except OSError as error:
            return OSError(error.errno, os.strerror(error.errno) if error.errno else str(error))
    return OSError("grpc refuses the address or the certificate")
