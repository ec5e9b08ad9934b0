"""An HTTP/2 client that sends whatever it is told to, right or wrong, and a good one beside it."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple, Self

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE = range(9)
CONTINUATION = 9
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, _, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, _, ENHANCE_YOUR_CALM = range(6, 12)
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 3, 4
SERVICE = "/byre.test.Echo/"
SECONDS = 20.0

Field = tuple[str, str]


class Frame(NamedTuple):
    """One frame as it was received."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    fields: Mapping[str, str] = {}
    """Of a HEADERS frame."""

    @property
    def number(self) -> int:
        """The first four octets of the payload: an error code, an increment."""
        return int.from_bytes(self.payload[:4]) & 0x7FFFFFFF

    @property
    def ends(self) -> bool:
        """Whether it ends its stream."""
        return self.kind in {DATA, HEADERS} and bool(self.flags & END_STREAM)


class Closed(Exception):
    """The server has closed the connection."""


class Answer(NamedTuple):
    """How a call ended."""

    headers: Mapping[str, str]
    body: bytes
    trailers: Mapping[str, str]
    reset: int | None
    """The error code of a RST_STREAM, if that was the end, or came after it."""

    @property
    def status(self) -> str | None:
        """grpc-status, wherever it is."""
        return self.trailers.get("grpc-status") or self.headers.get("grpc-status")

    @property
    def message(self) -> bytes:
        """The first gRPC message."""
        size = int.from_bytes(self.body[1:5])
        return self.body[5 : 5 + size]


def check_order(received: list[Frame]) -> None:
    """Check that the server keeps to the order of frames of RFC 9113 section 5.1 itself."""
    begun: set[int] = set()
    ended: set[int] = set()
    for one in received:
        if one.kind in {DATA, HEADERS}:
            assert one.stream % 2, one
            assert one.stream not in ended, one
            assert one.kind == HEADERS or one.stream in begun, one
            begun.add(one.stream)
        if one.ends or one.kind == RST_STREAM:
            ended.add(one.stream)


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def number(value: int) -> bytes:
    """Return four octets."""
    return struct.pack(">I", value)


def settings(*pairs: tuple[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *pair) for pair in pairs))


def message(body: bytes, compressed: int = 0) -> bytes:
    """Return a gRPC message."""
    return struct.pack(">BI", compressed, len(body)) + body


def request_fields(method: str, *more: Field) -> list[Field]:
    """Return the headers of a gRPC request."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", SERVICE + method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    ]


def literal(*fields: Field) -> bytes:
    """Return a header block of literals, as they are: nothing is checked or lower-cased."""
    block = b""
    for name, value in fields:
        block += b"\0"
        for text in (name.encode(), value.encode()):
            block += bytes(hpack.hpack.encode_integer(len(text), 7)) + text
    return block


class Client:
    """One connection. Streams are numbered by the caller, or by `call`."""

    def __init__(
        self,
        url: str,
        *pairs: tuple[int, int],
        tls: ssl.SSLContext | None = None,
        preface: bytes = PREFACE,
        hello: bool = True,
        receive_buffer: int | None = None,
    ) -> None:
        """Connect, and say hello with these settings unless told not to."""
        self.socket = connect(url, tls, receive_buffer)
        self._buffer = b""
        self.goaways: list[int] = []
        """Their codes."""
        self.credits: Counter[int] = Counter()
        """By how much windows were opened, by stream, 0 for the connection."""
        self.resets: dict[int, int] = {}
        """The code with which a stream was reset."""
        self._decoder = hpack.Decoder()
        self.next_stream = 1
        if hello:
            self.send(preface, settings(*pairs))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close without a word."""
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Send all of it. Raises Closed if the server has gone or takes nothing for `SECONDS`."""
        try:
            self.socket.sendall(b"".join(parts))
        except OSError as error:
            raise Closed from error

    def flood(self, chunks: Iterable[bytes], seconds: float = SECONDS) -> bool:
        """Send until the server closes or takes no more; return whether all was sent."""
        self.socket.settimeout(seconds)
        try:
            for chunk in chunks:
                self.socket.sendall(chunk)
        except OSError:
            return False
        finally:
            self.socket.settimeout(SECONDS)
        return True

    def frame(self, seconds: float = SECONDS) -> Frame:
        """Receive the next frame. Raises Closed or TimeoutError."""
        self.socket.settimeout(seconds)
        while len(self._buffer) < 9 or len(self._buffer) < 9 + int.from_bytes(self._buffer[:3]):
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                raise
            except OSError as error:
                raise Closed from error
            if not data:
                raise Closed
            self._buffer += data
        size = int.from_bytes(self._buffer[:3])
        kind, flags, stream = struct.unpack(">BBI", self._buffer[3:9])
        payload, self._buffer = self._buffer[9 : 9 + size], self._buffer[9 + size :]
        if kind == WINDOW_UPDATE:
            credit = int.from_bytes(payload) & 0x7FFFFFFF
            self.credits[stream & 0x7FFFFFFF] += credit
        if kind == RST_STREAM:
            self.resets[stream & 0x7FFFFFFF] = int.from_bytes(payload)
        if kind == GOAWAY:
            self.goaways.append(int.from_bytes(payload[4:8]))
        fields = self._decode(payload) if kind == HEADERS else {}
        return Frame(kind, flags, stream & 0x7FFFFFFF, payload, fields)

    def frames(self) -> Iterator[Frame]:
        """Receive frames until the connection is closed."""
        while True:
            try:
                yield self.frame()
            except Closed:
                return

    def until(self, wanted: Callable[[Frame], bool], seconds: float = SECONDS) -> Frame:
        """Receive frames and drop them up to the wanted one. Raises Closed or TimeoutError."""
        while not wanted(received := self.frame(seconds)):
            pass
        return received

    def goaway(self) -> int | None:
        """Receive until the connection is closed; return the code of the GOAWAY before that."""
        for _ in self.frames():
            pass
        return self.goaways[-1] if self.goaways else None

    def ping(self) -> None:
        """Wait until everything sent so far has been acted upon."""
        token = b"%8d" % time.monotonic_ns()
        token = token[-8:]
        self.send(frame(PING, payload=token))
        self.until(lambda f: f.kind == PING and bool(f.flags & ACK) and f.payload == token)

    def goaway_or_ping(self) -> int | None:
        """Return None if a ping is answered, else the code of the GOAWAY."""
        try:
            self.send(frame(PING, payload=b"alive???"))
            self.until(lambda f: f.kind == GOAWAY or (f.kind == PING and f.payload == b"alive???"))
        except Closed:
            pass
        return self.goaways[-1] if self.goaways else None

    def reset_of(self, stream: int) -> int:
        """Receive up to the RST_STREAM of a stream and return its code."""
        return self.until(lambda f: f.kind == RST_STREAM and f.stream == stream).number

    def open(self, method: str, *more: Field, end: bool = False) -> int:
        """Begin a call and return its stream."""
        stream = self.next_stream
        self.next_stream += 2
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(frame(HEADERS, flags, stream, literal(*request_fields(method, *more))))
        return stream

    def data(self, stream: int, payload: bytes, *, end: bool = False) -> None:
        """Send octets of a stream in frames of the usual size; windows are the caller's affair."""
        pieces = [payload[at : at + 16384] for at in range(0, len(payload), 16384)] or [b""]
        for piece in pieces:
            last = end and piece is pieces[-1]
            self.send(frame(DATA, END_STREAM if last else 0, stream, piece))

    def call(self, method: str, body: bytes = b"", *more: Field) -> Answer:
        """Make a unary call."""
        stream = self.open(method, *more)
        self.data(stream, message(body), end=True)
        return self.answer(stream)

    def answer(self, stream: int) -> Answer:
        """Receive up to the end of a stream and open windows; other streams are dropped."""
        headers: Mapping[str, str] = {}
        trailers: Mapping[str, str] = {}
        body = b""
        while True:
            received = self.frame()
            if received.kind == SETTINGS and not received.flags & ACK:
                self.send(frame(SETTINGS, ACK))
            if received.kind == GOAWAY and int.from_bytes(received.payload[4:8]):
                raise Closed
            if received.stream != stream:
                continue
            if received.kind == HEADERS:
                if headers:
                    trailers = received.fields
                else:
                    headers = received.fields
            elif received.kind == DATA:
                body += received.payload
                if received.payload and not received.ends:
                    more = number(len(received.payload))
                    with suppress(Closed):  # the rest may be here already
                        self.send(
                            frame(WINDOW_UPDATE, 0, stream, more),
                            frame(WINDOW_UPDATE, 0, 0, more),
                        )
            elif received.kind == RST_STREAM:
                return Answer(headers, body, trailers, received.number)
            if received.ends:
                return Answer(headers, body, trailers, None)

    def _decode(self, block: bytes) -> dict[str, str]:
        return {str(name): str(value) for name, value in self._decoder.decode(block)}

    def is_quiet(self, seconds: float = 0.0) -> bool:
        """Whether nothing waits to be read."""
        return not self._buffer and not select.select([self.socket], [], [], seconds)[0]


def connect(
    url: str, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
) -> socket.socket:
    """Connect to a URL of `Transport.listen`, with TLS if there is a context."""
    scheme, place = url.split("://", 1)
    family = socket.AF_UNIX if scheme.startswith("unix") else socket.AF_INET
    plain = socket.socket(family)
    if receive_buffer is not None:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.settimeout(SECONDS)
    if family == socket.AF_UNIX:
        plain.connect(place)
    else:
        host, port = place.rsplit(":", 1)
        plain.connect((host, int(port)))
    return tls.wrap_socket(plain) if tls else plain


class Bystander:
    """A good client that makes one call after another, from a thread of its own.

    Args:
        url: of the server.
        tls: to speak TLS.
        cpu_seconds: tells how long the server has computed; time on a busy machine says little.
    """

    def __init__(
        self, url: str, tls: ssl.SSLContext | None, cpu_seconds: Callable[[], float]
    ) -> None:
        self._client = Client(url, tls=tls)
        self._cpu_seconds = cpu_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.calls = 0
        self.slowest_cpu_seconds = 0.0
        """What the server has computed at most while a call waited."""
        self.fault: Exception | None = None

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                begun = self._cpu_seconds()
                answer = self._client.call("Echo", b"%d" % self.calls)
                assert (answer.message, answer.status) == (b"%d" % self.calls, "0"), answer
                spent = self._cpu_seconds() - begun
                self.slowest_cpu_seconds = max(self.slowest_cpu_seconds, spent)
                self.calls += 1
                self._stop.wait(0.005)
        except Exception as fault:
            self.fault = fault

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """Make one more call and check that all went well."""
        calls = self.calls
        while self.fault is None and self.calls <= calls:
            self._thread.join(0.01)
        self._stop.set()
        self._thread.join()
        self._client.close()
        if self.fault is not None:
            raise self.fault


@contextmanager
def bystander(
    url: str, tls: ssl.SSLContext | None, cpu_seconds: Callable[[], float]
) -> Iterator[Bystander]:
    """Have a good client served meanwhile."""
    good = Bystander(url, tls, cpu_seconds)
    good.start()
    try:
        yield good
    finally:
        good.finish()
