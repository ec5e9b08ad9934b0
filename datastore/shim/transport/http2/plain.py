"""Requests of HTTP/2 that are not gRPC: handed to an ASGI application, as etcd hands on its own.

Whoever negotiates TLS with a client of HTTP/2 gets pages and the JSON gateway that way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from datastore.shim.transport.api import PEER, Application, Call, Code, RpcError
from datastore.shim.transport.http2 import frames, status
from datastore.shim.transport.http2.hpack import Field, encode_literal
from datastore.shim.transport.http2.messages import Assembler
from datastore.shim.transport.http2.streaming import StreamCall

if TYPE_CHECKING:
    from datastore.shim.transport.http2.connection import Connection
    from datastore.shim.transport.http2.headers import Head

_LONGEST: Final = 99_999_999
"""Eight digits are all that ``grpc-timeout`` may have."""
_STATUS: Final = {Code.DEADLINE_EXCEEDED: 504, Code.UNAVAILABLE: 503}


class PlainCall(StreamCall):
    """A request whose DATA is its body, and whose answer has a status of HTTP."""

    __slots__ = ("_asked",)

    def __init__(
        self, connection: Connection, head: Head, stream_id: int, timeout: float | None
    ) -> None:
        # The application holds the deadline: it has the words for it.
        super().__init__(connection, head, stream_id, None)
        self._asked = timeout

    def expect_messages(self) -> None:
        self.remote_closed = False
        self.inbox = _Parts(0, gzip=False)

    def scope(self) -> Mapping[str, Any]:
        """Return the request as ASGI has it."""
        pseudo = dict(field for field in self.head.fields if field[0].startswith(b":"))
        headers = [field for field in self.head.fields if not field[0].startswith(b":")]
        if b":authority" in pseudo:
            headers.append((b"host", pseudo[b":authority"]))
        if self._asked is not None:
            headers.append((b"grpc-timeout", b"%dm" % min(int(self._asked * 1000), _LONGEST)))
        path, _, query = pseudo[b":path"].partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": pseudo[b":method"].decode("latin-1"),
            "scheme": "https" if self.connection.secure else "http",
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            PEER: self.peer,
        }

    def respond(self, code: int, headers: Iterable[Field]) -> None:
        """Send the head of the answer."""
        block = encode_literal(b":status", b"%d" % code)
        block += b"".join(encode_literal(name.lower(), value) for name, value in headers)
        self.began = True
        self.connection.sender.headers(self.stream_id, block)

    def write(self, data: bytes) -> None:
        """Send a part of the body."""
        flow = self.obtain_flow()
        if data:
            self.connection.sender.queue(flow, data)

    def end(self) -> None:
        """Say that the answer is whole."""
        self.finish()
        self.connection.sender.finish(self.obtain_flow(), b"")

    def refuse(self, error: RpcError | None) -> None:
        """Answer for the application; an answer that has begun is cut off."""
        if self.began:
            self.connection.give_up(self.stream_id, frames.INTERNAL_ERROR)
            return
        code = _STATUS.get(error.code, 500) if error is not None else 500
        self.began = True
        self.connection.sender.headers(self.stream_id, status.http_refusal(code))
        self.end()


class _Parts(Assembler):
    """Takes bytes as they come."""

    __slots__ = ()

    def feed(self, chunk: bytes) -> list[bytes]:
        return [chunk]


async def serve(application: Application, call: Call) -> None:
    """Have a request served."""
    assert isinstance(call, PlainCall)
    scope, gone, whole = call.scope(), asyncio.Event(), False
    call.on_done(gone.set)
    early = await _body_of_known_length(call)

    async def receive() -> Mapping[str, Any]:
        nonlocal whole
        if whole:
            await gone.wait()
            return {"type": "http.disconnect"}
        part = early.popleft() if early else await call.recv()
        whole = part is None
        return {"type": "http.request", "body": part or b"", "more_body": not whole}

    async def send(event: Mapping[str, Any]) -> None:
        if call.done:
            return
        if event["type"] == "http.response.start":
            call.respond(event["status"], event.get("headers", ()))
            return
        call.write(event.get("body", b"") if scope["method"] != "HEAD" else b"")
        if event.get("more_body", False):
            await call.drained()
        else:
            call.end()

    await application(scope, receive, send)


async def _body_of_known_length(call: PlainCall) -> deque[bytes | None]:
    """Wait for a body whose length was told, None at its end, unless it is large.

    Should it be another one, the stream is reset, which cannot be done once it has its answer.
    """
    parts: deque[bytes | None] = deque()
    size, known = 0, call.head.content_length >= 0
    while known and size <= call.connection.shared.max_recv:
        part = await call.recv()
        parts.append(part)
        if part is None:
            break
        size += len(part)
    return parts
