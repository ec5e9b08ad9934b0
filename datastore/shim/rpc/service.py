"""What all services share: the header, the state of the store, and how handlers are registered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable

from google.protobuf.message import DecodeError

from datastore.shim.errors import CorruptStore, NoLeader, ShimError
from datastore.shim.health import Health, State
from datastore.shim.rpc.header import Headers
from datastore.shim.rpc.status import to_rpc_error
from datastore.shim.transport.api import Call, Code, RpcError, Stream, Transport, Unary


class Desk:
    """Registers handlers so that every error leaves as a gRPC status and every call is counted."""

    def __init__(self, transport: Transport, headers: Headers, health: Health) -> None:
        self.headers = headers
        self.health = health
        self.handled: Counter[tuple[str, Code]] = Counter()
        """Calls answered, by path and code."""
        self.started: Counter[str] = Counter()
        self.kinds: dict[str, str] = {}
        """Path to `unary` or `bidi_stream`, as etcd's metrics call them."""
        self._transport = transport

    def unary(self, path: str, handler: Unary) -> None:
        """Serve a method with one request and one answer."""
        self.kinds[path] = "unary"
        self._transport.unary(path, self._guard(path, handler))

    def stream(self, path: str, handler: Stream, kind: str = "bidi_stream") -> None:
        """Serve a method that streams at least one way."""
        self.kinds[path] = kind
        self._transport.stream(path, self._guard_stream(path, handler))

    def require_leader(self, call: Call) -> None:
        """Refuse a call that asks for a leader while the database is away.

        Raises:
            NoLeader: the metadata say ``hasleader: true`` and there is none.
        """
        if not self.health.serving and wants_leader(call):
            raise NoLeader

    def require_store(self) -> None:
        """Refuse everything once the store has failed for good."""
        if self.health.state is State.FAILED:
            raise CorruptStore

    def _guard(self, path: str, handler: Unary) -> Unary:
        handled, started, health = self.handled, self.started, self.health
        ok = (path, Code.OK)

        def serve(call: Call, body: bytes) -> bytes | Awaitable[bytes]:  # hot
            started[path] += 1
            try:
                if not health.serving:
                    self.require_store()
                    self.require_leader(call)
                answer = handler(call, body)
            except (ShimError, RpcError, DecodeError) as error:
                raise self._refusal(path, error) from error
            if isinstance(answer, bytes):
                handled[ok] += 1
                return answer
            return self._later(path, answer)

        return serve

    async def _later(self, path: str, answer: Awaitable[bytes]) -> bytes:
        try:
            body = await answer
        except (ShimError, RpcError) as error:
            raise self._refusal(path, error) from error
        except asyncio.CancelledError:
            self.handled[path, Code.CANCELLED] += 1
            raise
        self.handled[path, Code.OK] += 1
        return body

    def _guard_stream(self, path: str, handler: Stream) -> Stream:
        async def serve(call: Call) -> None:
            self.started[path] += 1
            try:
                if not self.health.serving:
                    self.require_store()
                    self.require_leader(call)
                await handler(call)
            except (ShimError, RpcError, DecodeError) as error:
                raise self._refusal(path, error) from error
            except asyncio.CancelledError:
                self.handled[path, Code.CANCELLED] += 1
                raise
            self.handled[path, Code.OK] += 1

        return serve

    def _refusal(self, path: str, error: Exception) -> RpcError:
        refusal = to_refusal(error)
        self.handled[path, refusal.code] += 1
        return refusal


def to_refusal(error: Exception) -> RpcError:
    """Return how `error`, of a handler or of decoding a request, goes over the wire."""
    if isinstance(error, RpcError):
        return error
    if isinstance(error, ShimError):
        return to_rpc_error(error)
    return RpcError(Code.INTERNAL, f"grpc: error unmarshalling request: {error}")


def wants_leader(call: Call) -> bool:
    """Return whether the client set ``hasleader: true`` (kube-apiserver does on every watch)."""
    return "true" in call.metadata.get("hasleader", ())
