"""Any frames after a good beginning: the connection lives or ends, the server stays as it was."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import suppress

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.transport.conftest import GROWTH_BYTES
from tests.support.echo_server import EchoServer
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
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Client,
    Closed,
    Frame,
    check_order,
    frame,
    message,
    number,
    request_fields,
)
from tests.support.http2_client import settings as settings_frame
from tests.support.shim import shim

QUIET_SECONDS = 0.5
METHODS = ("Echo", "Soon", "Later", "Metadata", "Status", "Size", "Mirror", "Sum", "Count", "Wait",
           "Early", "Break", "Ignore", "Hang", "Nothing")  # fmt: skip
BODIES = (b"", b"x", b"5 not % there", b"10 100", b"100000", b"-1", b"\xff" * 300, bytes(40_000))
TIMEOUTS = ("1S", "0n", "5m", "100u", "x", "999999999S")

numbers = st.one_of(
    st.sampled_from((0, 1, 7, 8, 100, 65_535, 2**31 - 1, 2**31, 2**32 - 1)),
    st.integers(0, 2**32 - 1),
)
any_flags = st.one_of(st.integers(0, 255), st.sampled_from((0, 1, 4, 5, 8, 9, 0x20, 0x2D)))
pieces = st.one_of(
    st.sampled_from(BODIES).map(message),
    st.sampled_from(BODIES).map(message),
    st.sampled_from(BODIES).map(lambda body: message(gzip.compress(body), 1)),
    st.binary(max_size=30),
    st.just(b"\0\xff\xff\xff\xff"),
)
odd_fields = st.sampled_from((
    ("grpc-encoding", "gzip"), ("grpc-encoding", "snappy"), ("te", "gzip"), ("x-a-bin", "!!"),
    ("x-a-bin", "AAE,/w"), (":status", "200"), ("content-length", "7"), ("content-length", "x"),
    ("Upper", "x"), ("cookie", "a"), ("content-type", "text/html"), ("x", "y" * 5000),
))  # fmt: skip


def one_in(draw: st.DrawFn, times: int) -> bool:
    """Draw something rare."""
    return draw(st.integers(1, times)) == times


class Speaker:
    """Draws what a client says: most of it right, so that it gets far."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._encoder = hpack.Encoder()
        self._next = 1

    def stream(self) -> int:
        """Draw a stream that has been used, mostly."""
        if one_in(self._draw, 20):
            return self._draw(st.sampled_from((0, 2, self._next, 2**31 - 1)))
        return self._draw(st.integers(0, max(self._next // 2 - 1, 0))) * 2 + 1

    def head(self) -> bytes:
        """Draw the headers of a request."""
        draw = self._draw
        fields = request_fields(draw(st.sampled_from(METHODS)))
        if one_in(draw, 3):
            fields.append(("grpc-timeout", draw(st.sampled_from(TIMEOUTS))))
        if one_in(draw, 5):
            fields += draw(st.lists(odd_fields, max_size=2))
        block = bytes(self._encoder.encode(fields, huffman=draw(st.booleans())))
        if one_in(draw, 30):
            at = draw(st.integers(0, len(block)))
            block = block[:at] + draw(st.binary(max_size=4)) + block[at + 2 :]
        return block

    def call(self) -> list[bytes]:
        """Draw the frames of a call."""
        draw = self._draw
        stream = self._next
        if one_in(draw, 30):
            stream = self.stream()
        else:
            self._next += 2
        ends = END_STREAM if one_in(draw, 10) else 0
        block = self.head()
        if one_in(draw, 5):
            cut = draw(st.integers(0, len(block)))
            found = [
                frame(HEADERS, ends, stream, block[:cut])
                + frame(CONTINUATION, END_HEADERS, stream, block[cut:])
            ]
        else:
            found = [frame(HEADERS, END_HEADERS | ends, stream, block)]
        for piece in draw(st.lists(pieces, min_size=1, max_size=3)):
            found += [
                frame(DATA, 0, stream, piece[at : at + 16_384])
                for at in range(0, len(piece), 16_384)
            ]
        if not one_in(draw, 4):
            found.append(frame(DATA, END_STREAM, stream))
        return found

    def control(self) -> bytes:
        """Draw a frame that is about a call or the connection."""
        draw = self._draw
        small = number(draw(st.integers(1, 100_000)))
        pair = st.sampled_from(((1, 0), (1, 4096), (3, 1), (4, 0), (4, 70_000), (5, 20_000)))
        return draw(
            st.sampled_from((
                frame(PING, draw(st.sampled_from((0, 1))), 0, small * 2),
                frame(WINDOW_UPDATE, 0, 0, small),
                frame(WINDOW_UPDATE, 0, self.stream(), small),
                frame(RST_STREAM, 0, self.stream(), small),
                frame(PRIORITY, 0, self.stream(), number(0) + b"\x10"),
                frame(0x42, 0, self.stream(), small),
                settings_frame(draw(pair)),
            ))
        )  # fmt: skip

    def wild(self) -> bytes:
        """Draw a frame of any kind, right by chance."""
        draw = self._draw
        kind = draw(st.one_of(st.integers(0, 9), st.integers(0, 255)))
        value = number(draw(numbers))
        usual = {
            DATA: draw(pieces)[:16_384],
            HEADERS: b"\x82\x86" + value,
            PRIORITY: value + b"\x10",
            RST_STREAM: value,
            SETTINGS: b"\0" + draw(st.binary(min_size=1, max_size=1)) + value,
            PING: value * 2,
            GOAWAY: value * 2,
            WINDOW_UPDATE: value,
            CONTINUATION: b"\x82",
        }.get(kind, b"?")
        payload = draw(st.binary(max_size=40)) if one_in(draw, 5) else usual
        flags = draw(any_flags)
        if kind == HEADERS and flags & WITH_PRIORITY:
            payload = value + b"\x10" + payload
        return frame(kind, flags, draw(st.sampled_from((0, self.stream()))), payload)


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Draw what a client says on one connection."""
    speaker = Speaker(draw)
    said: list[bytes] = []
    for _ in range(draw(st.integers(1, 10))):
        if one_in(draw, 15):
            said.append(speaker.wild())
        elif one_in(draw, 3):
            said.append(speaker.control())
        else:
            said += speaker.call()
    data = b"".join(said)
    if one_in(draw, 5):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(min_size=1, max_size=5)) + data[at + 1 :]
    beginning = PREFACE + settings_frame()
    if one_in(draw, 50):
        beginning = beginning[: draw(st.integers(0, len(beginning)))]
    return beginning + data


class Fuzzed:
    """A server, and a good client on a connection that stays."""

    def __init__(self, server: EchoServer) -> None:
        self.server = server
        self.good = Client(server.url)
        self.good.ping()
        server.forget_peak()
        self.before = server.rss_bytes

    def check(self, conversation: bytes, cuts: list[int]) -> None:
        """Say it, cut somewhere; then see that everything is as it should be."""
        with Client(self.server.url, hello=False) as client:
            begin = 0
            for cut in [*sorted(cuts), len(conversation)]:
                client.flood([conversation[begin:cut]])
                begin = max(begin, cut)
            received = list(until_quiet(client))
            with suppress(OSError):  # the server was quicker
                client.socket.shutdown(socket.SHUT_WR)
            check_order([*received, *client.frames()])
        assert self.good.call("Echo", b"good").message == b"good"
        self.server.check_log()

    def finish(self) -> None:
        """See that nothing is left of all of them."""
        stats = {"connections": 0}
        while stats["connections"] != 1 or stats["streams"] or stats["pending"]:
            stats = json.loads(self.good.call("Stats").message)
        assert self.server.peak_rss_bytes - self.before < GROWTH_BYTES
        self.good.close()


def until_quiet(client: Client) -> Iterator[Frame]:
    """Receive until the server has acted upon everything, or waits for the rest of a frame."""
    last = b"the last"
    with suppress(Closed, TimeoutError):
        client.send(frame(PING, payload=last))
        while True:
            received = client.frame(QUIET_SECONDS)
            yield received
            if received.kind == PING and received.payload == last:
                return


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    with EchoServer("http2", tmp_path_factory.mktemp("fuzz")) as server:
        found = Fuzzed(server)
        yield found
        found.finish()


cuts = st.lists(st.integers(0, 3000), max_size=3)


@settings(max_examples=100)
@given(conversation=conversations(), cuts=cuts)
def test_any_conversation_leaves_the_server_as_it_was(fuzzed, conversation, cuts):
    fuzzed.check(conversation, cuts)


@settings(max_examples=40)
@given(conversation=st.binary(max_size=300), begun=st.booleans())
def test_any_octets_leave_the_server_as_it_was(fuzzed, conversation, begun):
    beginning = PREFACE + settings_frame() if begun else b""
    fuzzed.check(beginning + conversation, [])


@pytest.fixture(scope="module")
def shim_server(tmp_path_factory):
    server = shim(tmp_path_factory.mktemp("shim"), "memory", ["--transport=http2"])
    server.start()
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


beginnings = st.sampled_from((
    b"", b"P", b"PRI", b"PRI * HTTP/2.0\r\n", b"POST", b"GET /health HTTP/1.1\r\nHost: x\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
    b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"\x16\x03\x01",
))  # fmt: skip


@settings(max_examples=60)
@given(beginning=beginnings, rest=st.binary(max_size=100))
def test_any_octets_on_the_port_of_two_protocols_leave_it_as_it_was(shim_server, beginning, rest):
    url = f"http://{shim_server.target}"
    with Client(url, hello=False) as client:
        client.flood([beginning, rest])
        with suppress(OSError):
            client.socket.shutdown(socket.SHUT_WR)
            while client.socket.recv(1 << 16):
                pass
    with Client(url, hello=False) as good:
        good.flood([b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
        answer = b""
        while data := good.socket.recv(1 << 16):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200"), answer


@pytest.mark.soak
@pytest.mark.timeout(3600)
@given(conversation=conversations(), cuts=cuts)
def test_any_of_many_conversations_leaves_the_server_as_it_was(fuzzed, conversation, cuts):
    fuzzed.check(conversation, cuts)
