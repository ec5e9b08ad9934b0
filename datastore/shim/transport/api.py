"""The seam between the wire and the handlers: raw message bytes and one `Call`.

No handler imports a transport, no transport knows a message. A unary handler that can answer at
once returns bytes, and no task is made for it.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from datastore.shim.futures import complete


class Code(IntEnum):
    """gRPC status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Peer(NamedTuple):
    """Who is at the other end of a connection."""

    address: str
    cert_der: bytes | None
    common_name: str | None


class RpcError(Exception):
    """The only way to answer other than OK."""

    def __init__(
        self, code: Code, message: str, trailers: Sequence[tuple[str, str | bytes]] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trailers = trailers


PIECE_BYTES: Final = 64 << 10
"""A piece of a large answer has at least so many bytes, but for the last one."""
_CANCELLED = RpcError(Code.CANCELLED, "context canceled")


class Call(Protocol):
    """One RPC."""

    @property
    def path(self) -> str:
        """The method, as ``/package.Service/Method``."""

    @property
    def metadata(self) -> Mapping[str, Sequence[str | bytes]]:
        """The request's headers; a key may come several times."""

    @property
    def peer(self) -> Peer:
        """Who calls."""

    @property
    def deadline(self) -> float | None:
        """When the client stops waiting, on the loop's clock; the transport enforces it."""

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call back once: finished, reset, past its deadline, connection lost, or drained."""

    async def recv(self) -> bytes | None:
        """Return the next message, or None when the client has half-closed."""

    def send_nowait(self, message: bytes) -> int:
        """Queue a message and return the bytes that wait on this stream."""

    async def send(self, message: Body) -> None:
        """Queue a message, then wait as `drained` does."""

    async def drained(self) -> None:
        """Wait while more than the high-water mark waits on this stream."""

    async def exchange(self, answer: Answer) -> bytes | None:
        """Answer each message, where it can be in the turn of the loop that it comes in.

        Returns:
            The first message that `answer` has no answer to, which it may have been asked for
            twice; None when the client has half-closed.
        """

    def trailer(self, key: str, value: str | bytes) -> None:
        """Add a trailer to the answer."""


Answer = Callable[[bytes], "bytes | None"]
"""Answers a message at once, or not at all: then nothing was done. It must not raise."""


async def exchange(call: Call, answer: Answer) -> bytes | None:
    """Do what `Call.exchange` says by receiving and sending."""
    while (message := await call.recv()) is not None:
        reply = answer(message)
        if reply is None:
            return message
        await call.send(reply)
    return None


class Later:
    """An answer that is given later, without a task or a future: once, by `answer` or `refuse`.

    Whoever waits is called at once, in the order in which answers are given: a batch of writes
    is answered in one go.
    """

    __slots__ = ("_body", "_error", "_taker", "note", "on_abandon")

    def __init__(self) -> None:
        self.on_abandon: Callable[[], object] = _ignore
        """Called when nobody waits any more and there is no answer yet."""
        self.note: Callable[[RpcError | None], object] = _ignore
        """Told first, once, that there is an answer and whether it is an error."""
        self._body: bytes | None = None
        self._error: RpcError | None = None
        self._taker: Callable[[bytes | None, RpcError | None], None] | None = None

    def take(self, taker: Callable[[bytes | None, RpcError | None], None]) -> None:
        """Hand the answer, which may be there already, to `taker`: a body or an error. Hot."""
        if self._body is None and self._error is None:
            self._taker = taker
        else:
            taker(self._body, self._error)

    def answer(self, body: bytes) -> None:
        """Answer. Hot."""
        self._body = body
        self.note(None)
        self._give(body, None)

    def refuse(self, error: RpcError) -> None:
        """Answer with an error."""
        self._error = error
        self.note(error)
        self._give(None, error)

    def _give(self, body: bytes | None, error: RpcError | None) -> None:
        taker = self._taker
        # Who answers holds this, and is held by it until here: an answered call is no cycle.
        self._taker = None
        self.on_abandon = self.note = _ignore
        if taker is not None:
            taker(body, error)

    async def wait(self) -> bytes:
        """Return the answer, or raise the error; a waiter that is cancelled abandons it."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.take(partial(complete, future))
        try:
            return await future
        except asyncio.CancelledError:
            self.abandon()
            raise
        finally:
            del future  # an error raised from it holds this frame

    def abandon(self) -> None:
        """Say that nobody waits any more: the transport's word when a call ends early."""
        if self._body is None and self._error is None:
            self._taker = None
            abandoned, note = self.on_abandon, self.note
            self.on_abandon = self.note = _ignore
            abandoned()
            note(_CANCELLED)


def _ignore(_error: object = None) -> None:
    pass


class Pieces:
    """A large answer that is never there as a whole: its parts are shared until they are sent.

    A transport takes piece after piece as the client lets it; its length is that of what is left.
    """

    __slots__ = ("_ends", "_parts", "_taken")

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = list(parts)
        self._ends = array("Q", accumulate(map(len, self._parts)))
        # What is taken leaves the end of a list at no cost, however many are left.
        self._parts.reverse()
        self._taken = 0

    def __len__(self) -> int:
        return self._ends[-1] - self._taken if self._parts else 0

    def take(self) -> bytes:
        """Return the next piece, parts that make `PIECE_BYTES`; nothing after the last."""
        parts, ends = self._parts, self._ends
        if not parts:
            return b""
        first = len(ends) - len(parts)
        last = min(bisect_left(ends, self._taken + PIECE_BYTES, first), len(ends) - 1)
        size = last + 1 - first
        self._taken = ends[last]
        if size == 1:
            return parts.pop()
        piece = b"".join(parts[: -size - 1 : -1])
        del parts[-size:]
        return piece

    def join(self) -> bytes:
        """Return all that is left, for who needs it as a whole."""
        parts, self._parts = self._parts, []
        return b"".join(reversed(parts))


Body = bytes | Pieces
"""One message that is sent."""


def whole(body: Body) -> bytes:
    """Return a message as a whole."""
    return body if isinstance(body, bytes) else body.join()


async def settled(answer: Body | Later | Awaitable[Body]) -> bytes:
    """Return what a unary handler answers, now or later, as a whole."""
    if isinstance(answer, Later):
        return await answer.wait()
    body = answer if isinstance(answer, bytes | Pieces) else await answer
    return whole(body)


Unary = Callable[[Call, bytes], "Body | Later | Awaitable[Body]"]
"""Bytes, or pieces: answered in this turn of the loop. `Later`: by whoever works on it, without a
task. An error is raised as RpcError."""
Stream = Callable[[Call], Awaitable[None]]
"""Server-streaming and bidirectional alike; returning is OK, cancelled when the call is done."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that a transport holds; sizes in bytes, times in seconds."""

    max_recv: int = 2 << 20
    max_streams: int = 1 << 31
    keepalive: float = 7200.0
    keepalive_timeout: float = 20.0
    min_ping: float = 5.0
    max_connections: int = 10_000


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a TLS listener; with `require` clients need a certificate of `trusted_ca`."""

    cert: Path
    key: Path
    trusted_ca: Path | None = None
    require: bool = False


class Http1Connection(Protocol):
    """What speaks HTTP/1.1 on one connection; its methods are those of an asyncio.Protocol."""

    def connection_made(self, transport: asyncio.Transport, /) -> None:
        """Begin."""

    def data_received(self, data: bytes, /) -> None:
        """Take bytes."""

    def pause_writing(self) -> None:
        """Write less: the peer does not read."""

    def resume_writing(self) -> None:
        """Write on."""

    def connection_lost(self, error: Exception | None, /) -> None:
        """End."""

    def shutdown(self) -> None:
        """Close as soon as the answer under way is given."""

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, which may take its time."""


Application = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application: scope, receive, send."""
PEER: Final = "byre.peer"
"""Where the scope of a request says who is at the other end of the connection, as `Peer`."""


class Transport(Protocol):
    """A server for RPCs of raw bytes."""

    def http1(self, make: Callable[[], Http1Connection]) -> None:
        """Have HTTP/1.1 served on the same ports, as etcd does, by a transport that can."""

    def plain(self, application: Application) -> None:
        """Have requests of HTTP/2 served that are not gRPC, by a transport that can."""

    def unary(self, path: str, handler: Unary) -> None:
        """Serve a method with one request and one answer."""

    def stream(self, path: str, handler: Stream) -> None:
        """Serve a method that streams at least one way."""

    async def listen(self, url: str, tls: TlsFiles | None = None) -> str:
        """Bind ``http(s)://host:port`` or ``unix(s):///path`` and return the bound URL."""

    async def drain(self, grace: float) -> None:
        """Take no new calls, let those under way finish for `grace` seconds, then end them."""

    def stats(self) -> Mapping[str, int]:
        """Return counters: connections, streams, calls."""
