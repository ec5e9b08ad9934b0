"""What goes back to the HTTP client: an answer, a row of answers, or an error."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from datastore.shim.transport.api import Code, RpcError

_JSON: Final = (b"content-type", b"application/json")
_GRPC: Final = (b"grpc-metadata-content-type", b"application/grpc")
"""grpc-gateway shows the header of the RPC behind an answer."""

_STATUS: Final = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
"""grpc-gateway's HTTP status of each code; 500 for the others."""


class Reply:
    """The response to one request."""

    def __init__(self, send: Callable[[Any], Awaitable[None]]) -> None:
        self._send = send
        self._begun = False
        self._ended = False

    async def only(self, body: bytes) -> None:
        """Send the one answer."""
        await self._whole(200, body, [_JSON, _GRPC])

    async def text(self, status: int, text: str) -> None:
        """Refuse a request for what it came on."""
        await self._whole(status, text.encode(), [(b"content-type", b"text/plain; charset=utf-8")])

    async def part(self, body: bytes) -> None:
        """Send one answer of many, on a line of its own."""
        await self._begin(200, [_JSON, _GRPC])
        await self._body(b'{"result":%b}\n' % body, more=True)

    async def end(self) -> None:
        """Send nothing more; where nothing was sent the body is empty."""
        await self._begin(200, [])
        await self._body(b"", more=False)

    async def refuse(self, error: RpcError) -> None:
        """Send an error instead of an answer, or behind those that were sent.

        Behind the last it is too late, as when the deadline passes while that is sent.
        """
        if self._ended:
            return
        if self._begun:
            await self.break_off(error)
            return
        headers = [_JSON]
        if error.code is Code.UNAUTHENTICATED:
            headers.append((b"www-authenticate", error.message.encode("ascii", "replace")))
        await self._whole(_to_status(error), _to_json(error), headers)

    async def break_off(self, error: RpcError) -> None:
        """End a row of answers with an error, in the form that it has there."""
        await self._begin(_to_status(error), [_JSON, _GRPC])
        await self._body(b'{"error":%b}\n' % _to_json(error), more=False)

    async def _whole(
        self, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        length = (b"content-length", b"%d" % len(body))
        await self._begin(status, [*headers, length])
        await self._body(body, more=False)

    async def _begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        if not self._begun:
            self._begun = True
            event = {"type": "http.response.start", "status": status, "headers": headers}
            await self._send(event)

    async def _body(self, body: bytes, *, more: bool) -> None:
        self._ended = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _to_status(error: RpcError) -> int:
    return _STATUS.get(error.code, 500)


def _to_json(error: RpcError) -> bytes:
    fields = {"code": int(error.code), "message": error.message}
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
