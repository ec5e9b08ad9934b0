"""An RPC that came as an HTTP request: what handlers see of it (transport.api.Call)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from datastore.shim.transport.api import Answer, Body, Peer, RpcError, exchange, whole
from datastore.shim.transport.http2 import timeout

HIGH_WATER: Final = 1 << 20
"""Bytes of answers that may wait for the client before a handler that asks has to wait."""
MOST_REQUESTS: Final = 4
"""Requests that may wait for the handler; more are not read yet."""
_METADATA: Final = "grpc-metadata-"
_MARK: Final = "grpcgateway-accept"
"""What tells auth that the certificate of the connection is not the caller's (contract 2.10)."""


class GatewayCall:
    """One RPC. Its requests are put in by `give`, its answers are taken out by `take`."""

    def __init__(
        self,
        path: str,
        metadata: Mapping[str, Sequence[str | bytes]],
        peer: Peer,
        deadline: float | None,
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.peer = peer
        self.deadline = deadline
        self._callbacks: list[Callable[[], None]] = []
        self._requests: asyncio.Queue[bytes | RpcError | None] = asyncio.Queue(MOST_REQUESTS)
        self._over = False
        self._answers: deque[bytes] = deque()
        self._pending = 0
        self._answered = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    # For handlers

    def on_done(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    async def recv(self) -> bytes | None:
        """Return the next request, None behind the last."""
        if self._over:
            return None
        request = await self._requests.get()
        if isinstance(request, RpcError):
            raise request
        self._over = request is None
        return request

    def send_nowait(self, message: bytes) -> int:
        """Queue an answer and return the bytes that wait."""
        self._answers.append(message)
        self._pending += len(message)
        self._answered.set()
        if self._pending > HIGH_WATER:
            self._drained.clear()
        return self._pending

    async def send(self, message: Body) -> None:
        self.send_nowait(whole(message))
        await self.drained()

    async def drained(self) -> None:
        await self._drained.wait()

    async def exchange(self, answer: Answer) -> bytes | None:
        return await exchange(self, answer)

    def trailer(self, key: str, value: str | bytes) -> None:
        """Drop it: nobody reads a trailer of HTTP/1.1."""

    # For the gateway

    async def give(self, request: bytes | RpcError | None) -> None:
        """Hand a request to the handler, why there is none, or None behind the last."""
        await self._requests.put(request)

    async def answered(self) -> None:
        """Wait until an answer can be taken."""
        if not self._answers:
            self._answered.clear()
            await self._answered.wait()

    def take(self) -> bytes | None:
        """Return the next answer, None while there is none."""
        if not self._answers:
            return None
        answer = self._answers.popleft()
        self._pending -= len(answer)
        if self._pending <= HIGH_WATER // 2:
            self._drained.set()
        return answer

    def finish(self) -> None:
        """Say that the call is over."""
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


def to_metadata(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, Sequence[str | bytes]]:
    """Return what the headers of an HTTP request say to the RPC, as grpc-gateway takes it."""
    found: dict[str, list[str | bytes]] = {_MARK: ["*/*"]}
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").lower()
        if name == "authorization" or name.startswith(_METADATA):
            value = raw_value.decode("latin-1")
            found.setdefault(name.removeprefix(_METADATA), []).append(value)
    return found


def to_timeout(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Return the seconds that ``grpc-timeout`` grants.

    Raises:
        BadTimeout: it is none.
    """
    given = next((value for name, value in headers if name == b"grpc-timeout"), None)
    return None if given is None else timeout.parse(given)
