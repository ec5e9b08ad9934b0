"""What a client may say on a connection of HTTP/2, to a server without a socket."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

import hpack

from datastore.shim.transport.api import Call
from datastore.shim.transport.http2.server import Http2Transport
from tests.support.echo import SERVICE, Echo, number
from tests.support.http2_client import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    check_order,
    frame,
    message,
    request_fields,
    settings,
)
from tests.support.http2_rules import (
    LARGEST_ID,
    check_blocks,
    check_same,
    check_windows,
    cut_frames,
)
from tests.support.http2_wire import Wire
from tests.support.simulation import simulate

METHODS = ("Echo", "Soon", "Later", "Metadata", "Status", "Size", "Mirror", "Sum", "Count", "Wait",
           "Early", "Break", "Ignore", "Hang", "Nothing")  # fmt: skip
TIMEOUTS = ("", "1S", "0n", "5m", "x")
ODD_FIELDS = (
    ("grpc-encoding", "snappy"), ("te", "gzip"), ("x-a-bin", "!!"), ("x-a-bin", "AAE,/w"),
    (":status", "200"), ("content-length", "7"), ("content-length", "x"), ("Upper", "x"),
    ("content-type", "text/html"), ("cookie", "a"),
)  # fmt: skip
OPEN, GZIP, PARTS, ODD = 0x80, 0x40, 0x20, 0x10
"""How a call is made, the second octet behind its step; also which of the timeouts it has."""
TURNS = 30
"""Of the loop, after which all is done that can be."""
FRAME, CALL, RAW, CUT, TURN, WAIT, PAUSE, DRAIN = range(8)
"""The steps of a conversation, the first octet of each."""


class Faults(logging.Handler):
    """Keeps what is logged that nobody should have to read."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


class Bounded(Echo):
    """Answers with no more than fits into the fuzzer's memory."""

    def size(self, call: Call, body: bytes) -> bytes:
        return bytes(number(body[:6]))

    async def count(self, call: Call) -> None:
        for _ in range(number((await call.recv() or b"")[:2])):
            await call.send(bytes(9_000))


async def page(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Give a request's body back."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    while (part := await receive()).get("more_body"):
        await send({"type": "http.response.body", "body": part["body"], "more_body": True})
    await send({"type": "http.response.body", "body": part.get("body", b"")})


class Conversation:
    """A connection, and a client that follows a script of octets.

    Args:
        script: of octets.
        piece: octets that are handed over at once, at most.
    """

    def __init__(self, script: bytes, piece: int) -> None:
        self._script = iter(script)
        self._piece = piece
        self._encoder = hpack.Encoder()
        self._next = 1
        self._buffer = PREFACE + settings()
        self._said = b""
        self.heard: list[Frame] = []
        self.wire = Wire()
        self.transport = Http2Transport()
        Bounded(self.transport)
        self.transport.plain(page)
        for name in ("Bug", "Fresh", "Stubborn"):
            self._forget(SERVICE + name)
        self.transport._sweeper.start()
        self.connection = self.transport._connect()
        self.connection.connection_made(self.wire)  # type: ignore[arg-type] # all that is used

    def _forget(self, path: str) -> None:
        methods = self.transport._methods
        methods.unary.pop(path, None)
        methods.stream.pop(path, None)

    async def run(self) -> None:
        """Say what the script tells, and see that nothing is left and no rule was broken."""
        steps: dict[int, Callable[[], object]] = {
            FRAME: self._frame,
            CALL: self._call,
            RAW: lambda: self._say(self._octets()),
            CUT: lambda: self._deliver(keep=self._octet()),
            PAUSE: self.connection.pause_writing,
            DRAIN: self.connection.announce_end,
        }
        for step in self._script:
            if step in {TURN, WAIT}:
                self._deliver()
                await asyncio.sleep(0 if step == TURN else self._octet() / 4)
                if self.connection.sender.paused:
                    self.connection.resume_writing()
            elif step in steps:
                steps[step]()
        await self._end()

    def _octet(self) -> int:
        return next(self._script, 0)

    def _octets(self) -> bytes:
        return bytes(islice(self._script, self._octet()))

    def _say(self, data: bytes) -> None:
        self._buffer += data

    def _deliver(self, keep: int = 0) -> None:
        """Hand over what has been said, but for some last octets, as asyncio would."""
        cut = max(0, len(self._buffer) - keep)
        if cut and self.wire.reading and not self.wire.closed:
            data, self._buffer = self._buffer[:cut], self._buffer[cut:]
            self._said += data
            for at in range(0, len(data), self._piece):
                self.connection.data_received(data[at : at + self._piece])

    def _frame(self) -> None:
        kind, flags, stream = self._octet(), self._octet(), self._octet()
        # The largest ids are worth trying, too.
        stream = stream if stream < 250 else LARGEST_ID - 255 + stream
        self._say(frame(kind, flags, stream, self._octets()))

    def _call(self) -> None:
        method, how = METHODS[self._octet() % len(METHODS)], self._octet()
        fields = request_fields(method)
        if timeout := TIMEOUTS[how % len(TIMEOUTS)]:
            fields.append(("grpc-timeout", timeout))
        body = message(self._octets())
        if how & GZIP:
            fields.append(("grpc-encoding", "gzip"))
            body = message(gzip.compress(body[5:], mtime=0), 1)
        if how & ODD:
            fields.append(ODD_FIELDS[self._octet() % len(ODD_FIELDS)])
        block = bytes(self._encoder.encode(fields))
        self._say(frame(HEADERS, END_HEADERS, self._next, block))
        cut = len(body) // 2 if how & PARTS else 0
        if cut:
            self._say(frame(DATA, 0, self._next, body[:cut]))
        self._say(frame(DATA, 0 if how & OPEN else END_STREAM, self._next, body[cut:]))
        self._next += 2

    async def _settle(self) -> None:
        for _ in range(TURNS):
            self._deliver()
            await asyncio.sleep(0)

    async def _end(self) -> None:
        await self._settle()
        if self.connection.sender.paused:
            self.connection.resume_writing()
        is_whole = not self._buffer and not self.wire.closed and cut_frames(self._said)[1]
        self._say(frame(PING, payload=b"the last"))
        await self._settle()
        self.heard = [Frame(*one) for one in self.wire.take()]
        assert not is_whole or any(one.kind in {PING, GOAWAY} for one in self.heard)
        check_order(self.heard)
        check_blocks(self.heard)
        check_windows(cut_frames(self._said)[0], self.heard)
        self.connection.connection_lost(None)
        await self.transport.drain(0)
        self._check_nothing_left()

    def _check_nothing_left(self) -> None:
        shared, stats = self.transport._shared, self.transport.stats()
        assert not stats["connections"], stats
        assert not stats["streams"], stats
        assert not stats["pending"], stats
        assert not shared.ledger.held
        assert not shared.tasks
        assert not self.connection.running


def _call(method: str, body: bytes, how: int = 0) -> bytes:
    return bytes([CALL, METHODS.index(method), how, len(body)]) + body


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return bytes([FRAME, kind, flags, stream, len(payload)]) + payload


_TURN = bytes([TURN])
SEEDS = [
    b"".join(_call(method, b"7") for method in METHODS) + _TURN * 9,
    b"".join(_call(method, b"300000", OPEN) + _TURN for method in ("Size", "Mirror", "Sum")),
    _call("Size", b"900000") + _frame(WINDOW_UPDATE, 0, 0, b"\0\x10\0\0")
    + _frame(WINDOW_UPDATE, 0, 1, b"\0\x10\0\0") + _TURN,
    _call("Count", b"20") + _TURN * 3 + _frame(SETTINGS, 0, 0, b"\0\4\0\1\0\0") + _TURN,
    b"".join(_call(method, b"7", how) for method in ("Echo", "Metadata", "Mirror")
             for how in (GZIP, PARTS, ODD)) + _TURN,
    _call("Wait", b"a") + _TURN * 3 + _frame(RST_STREAM, 0, 1, b"\0\0\0\x08") + _TURN,
    _call("Hang", b"a", 1) + _call("Later", b"a") + bytes([WAIT, 20, DRAIN, TURN, WAIT, 9]),
    _call("Mirror", b"a", OPEN) + _frame(DATA, 8, 1, b"\3\0\0\0\0\1aaaa") + _TURN
    + _frame(HEADERS, 5, 1, b"\0\1a\1b") + _TURN,
    _frame(HEADERS, 1, 1, b"\x83\x86") + _frame(CONTINUATION, 4, 1, b"\x84") + _TURN,
    _frame(HEADERS, 0x25, 1, b"\0\0\0\0\x10\x83\x86\x84") + bytes([CUT, 3, TURN, PAUSE]),
    _frame(PING, 0, 0, b"12345678") + _frame(GOAWAY, 0, 0, bytes(8)) + bytes([RAW, 2, 0, 0]),
    _frame(PRIORITY, 0, 1, b"\0\0\0\0\x10") + _frame(PUSH_PROMISE, 4, 1, bytes(4)),
]  # fmt: skip


def attempt(data: bytes) -> None:
    """Have one conversation, and once more octet by octet."""
    faults, log = Faults(), logging.getLogger()

    async def run() -> None:
        await asyncio.sleep(1)  # at 0.0 a call has not been opened
        heard = []
        for piece in (LARGEST_ID, 1):
            conversation = Conversation(data, piece)
            await conversation.run()
            heard.append(conversation.heard)
        check_same(*heard)

    log.addHandler(faults)
    try:
        simulate(run)
    finally:
        log.removeHandler(faults)
    assert not faults.found, faults.found
