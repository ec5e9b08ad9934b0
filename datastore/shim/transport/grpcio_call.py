"""One RPC of grpc.aio, seen through the seam."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import grpc

from datastore.shim.transport.api import Answer, Body, Code, Peer, RpcError, exchange, whole

log = logging.getLogger(__name__)

_HIGH_WATER: Final = 64 << 10
_EOF: Final = grpc.aio.EOF


def check_size(message: bytes, limit: int) -> None:
    """Refuse a message above the receive limit, in grpc-go's words."""
    if len(message) > limit:
        raise RpcError(
            Code.RESOURCE_EXHAUSTED,
            f"grpc: received message larger than max ({len(message)} vs. {limit})",
        )


class GrpcioCall:
    """One RPC. Everything a handler may not ask for is worked out only when asked."""

    __slots__ = ("_context", "_metadata", "_peer", "_trailers", "path")

    def __init__(self, path: str, context: Any) -> None:
        self.path = path
        self._context = context
        self._metadata: Mapping[str, Sequence[str | bytes]] | None = None
        self._peer: Peer | None = None
        self._trailers: list[tuple[str, str | bytes]] = []

    @property
    def metadata(self) -> Mapping[str, Sequence[str | bytes]]:
        """The request's headers; a key may come several times."""
        if self._metadata is None:
            found: dict[str, list[str | bytes]] = {}
            for key, value in self._context.invocation_metadata() or ():
                found.setdefault(key, []).append(value)
            self._metadata = found
        return self._metadata

    @property
    def peer(self) -> Peer:
        """Who calls, with the common name of the client certificate that was verified."""
        if self._peer is None:
            auth = self._context.auth_context()
            names = auth.get("x509_common_name")
            certs = auth.get("x509_pem_cert")
            self._peer = Peer(
                self._context.peer(),
                _to_der(certs[0]) if certs else None,
                names[0].decode("utf-8", "replace") if names else None,
            )
        return self._peer

    @property
    def deadline(self) -> float | None:
        """When the client stops waiting; grpc ends the call then by itself."""
        left = self._context.time_remaining()
        return None if left is None else asyncio.get_running_loop().time() + left

    def on_done(self, callback: Callable[[], None]) -> None:
        self._context.add_done_callback(lambda _context: callback())

    async def recv(self) -> bytes | None:
        raise RuntimeError("a unary call has no further message")

    def send_nowait(self, message: bytes) -> int:
        raise RuntimeError("a unary call is answered by returning")

    async def send(self, message: Body) -> None:
        self.send_nowait(whole(message))

    async def drained(self) -> None:
        """Return at once: a unary call queues nothing."""

    async def exchange(self, answer: Answer) -> bytes | None:
        return await exchange(self, answer)

    def trailer(self, key: str, value: str | bytes) -> None:
        self._trailers.append((key, value))
        self._context.set_trailing_metadata(tuple(self._trailers))


class StreamCall(GrpcioCall):
    """One streaming RPC: a queue of messages and a task that writes them, one after the other."""

    __slots__ = ("_drained", "_max_recv", "_pending", "_queue", "_wake", "_writer")

    def __init__(self, path: str, context: Any, max_recv: int) -> None:
        super().__init__(path, context)
        self._max_recv = max_recv
        self._queue: deque[bytes] = deque()
        self._pending = 0
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def recv(self) -> bytes | None:
        message = await self._context.read()
        if message is _EOF:
            return None
        check_size(message, self._max_recv)
        return bytes(message)

    def send_nowait(self, message: bytes) -> int:  # hot
        self._queue.append(message)
        self._pending += len(message)
        self._wake.set()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return self._pending

    async def send(self, message: Body) -> None:
        self.send_nowait(whole(message))
        await self.drained()

    async def drained(self) -> None:
        while self._pending > _HIGH_WATER:
            await self._progress()

    async def flush(self) -> None:
        """Wait until everything queued has been handed to the connection."""
        while self._pending:
            await self._progress()

    def close(self) -> None:
        """Stop writing; what is queued is lost."""
        if self._writer is not None:
            self._writer.cancel()

    async def _progress(self) -> None:
        """Wait until the writer has written one more message, or can write no more."""
        assert self._writer is not None
        if self._writer.done():
            self._queue.clear()
            self._pending = 0
            return
        self._drained.clear()
        await self._drained.wait()

    async def _write(self) -> None:
        queue, wake, context = self._queue, self._wake, self._context
        try:
            while True:
                while queue:
                    message = queue.popleft()
                    await context.write(message)
                    self._pending -= len(message)
                    self._drained.set()
                wake.clear()
                await wake.wait()
        except Exception as error:
            log.debug("the stream takes no more messages", exc_info=error)
        finally:
            self._drained.set()


def _to_der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
