"""A connection without a socket: what is written is kept, what a client says is handed in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from datastore.shim.transport.api import Http1Connection, Limits
from datastore.shim.transport.http2 import frames
from datastore.shim.transport.http2.connection import Connection
from datastore.shim.transport.http2.headers import Methods
from datastore.shim.transport.http2.hpack import encode_literal
from datastore.shim.transport.http2.shared import Shared

Frame = tuple[int, int, int, bytes]
"""Kind, flags, stream, payload."""


def split(data: bytes) -> list[Frame]:
    """Return the frames in what was written."""
    found, position = [], 0
    while position < len(data):
        high, low, kind, flags, stream_id = frames.unpack_head(data, position)
        position += frames.HEAD_SIZE
        end = position + (high << 8 | low)
        assert end <= len(data)
        found.append((kind, flags, stream_id, data[position:end]))
        position = end
    return found


class Wire:
    """The transport of asyncio, as far as a connection uses it."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.writes = 0
        self.reading = True
        self.closed = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data
        self.writes += 1

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        """Take note of nothing."""

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def take(self) -> list[Frame]:
        """Return what was written since the last time."""
        found = split(bytes(self.written))
        self.written.clear()
        return found


class Pair:
    """A connection and the client's side of it."""

    def __init__(
        self,
        methods: Methods,
        limits: Limits | None = None,
        http1: Callable[[], Http1Connection] | None = None,
    ) -> None:
        self.wire = Wire()
        self.connections: set[Connection] = set()
        self.shared = Shared(limits or Limits(), methods)
        self.shared.http1 = http1
        self.connection = Connection(self.shared, self.connections)
        self.connection.connection_made(self.wire)  # type: ignore[arg-type] # all that is used
        self.next_id = 1

    def hello(self, *settings: tuple[int, int]) -> None:
        """Say what a client says first."""
        self.say(frames.PREFACE + frames.settings(list(settings)))
        self.wire.take()

    def say(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def turns(self, condition: Callable[[], object]) -> None:
        """Let the loop turn until something is the case; a thousand turns have to do."""
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0)
        raise AssertionError("the loop turned in vain")

    async def handlers_ended(self) -> None:
        """Let the loop turn until no handler runs."""
        await self.turns(lambda: not self.shared.tasks)

    def heard(self) -> list[Frame]:
        """Return what the server has written."""
        return self.wire.take()

    def headers(self, path: str, *more: tuple[bytes, bytes], flags: int = 0) -> bytes:
        """Return the HEADERS of the next stream."""
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b"content-type", b"application/grpc"),
            *more,
        ]
        block = b"".join(encode_literal(*field) for field in fields)
        self.next_id += 2
        flags |= frames.END_HEADERS
        return frames.head(len(block), frames.HEADERS, flags, self.next_id - 2) + block

    def call(self, path: str, body: bytes, *more: tuple[bytes, bytes]) -> int:
        """Begin a call with one message; return its stream."""
        head = self.headers(path, *more)
        self.say(head + data(self.next_id - 2, message(body), end=True))
        return self.next_id - 2


def message(body: bytes) -> bytes:
    """Return a message with its prefix."""
    return b"\0" + len(body).to_bytes(4, "big") + body


def data(stream_id: int, payload: bytes, *, end: bool = False) -> bytes:
    """Return a DATA frame."""
    flags = frames.END_STREAM if end else 0
    return frames.head(len(payload), frames.DATA, flags, stream_id) + payload


def kinds(found: list[Frame]) -> list[int]:
    """Return only the kinds."""
    return [frame[0] for frame in found]
