"""Floods on one connection: it ends, memory stays bounded and others are served meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.support.http2_client import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Client,
    frame,
    literal,
    message,
    number,
    request_fields,
    settings,
)

CHUNK = 200
FRAMES = 200_000
REQUEST = literal(*request_fields("Hang"))


def repeated(one: bytes, times: int = FRAMES) -> Iterator[bytes]:
    """Yield the same frame many times."""
    for _ in range(times // CHUNK):
        yield one * CHUNK


def streams(make: Callable[[int], bytes], times: int = 20_000) -> Iterator[bytes]:
    """Yield what is made for each of many streams."""
    numbers = count(1, 2)
    for _ in range(times // CHUNK):
        yield b"".join(make(next(numbers)) for _ in range(CHUNK))


def test_a_block_that_never_ends_ends_the_connection(victim):
    with victim.connect() as client:
        client.send(frame(HEADERS, 0, 1, REQUEST))
        client.flood(repeated(frame(CONTINUATION, 0, 1, b"\x82" * 1000), 100_000))
        assert client.goaway() == ENHANCE_YOUR_CALM


def test_empty_continuations_end_the_connection(victim):
    with victim.connect() as client:
        client.send(frame(HEADERS, 0, 1, REQUEST))
        client.flood(repeated(frame(CONTINUATION, 0, 1)))
        assert client.goaway() == ENHANCE_YOUR_CALM


def test_many_references_to_a_large_field_end_the_connection(victim):
    """HPACK bomb."""
    with victim.connect() as client:
        large = b"\x40" + literal(("x-large", "x" * 4000))[1:]
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, REQUEST + large))
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, REQUEST + b"\xbe" * 12_000))
        assert client.goaway() == ENHANCE_YOUR_CALM


def test_calls_that_are_reset_at_once_end_the_connection(victim):
    """Rapid reset, CVE-2023-44487."""
    flags = END_HEADERS | END_STREAM
    with victim.connect() as client:
        client.flood(
            streams(
                lambda stream: (
                    frame(HEADERS, flags, stream, REQUEST)
                    + frame(RST_STREAM, 0, stream, number(8))
                )
            )
        )
        assert client.goaway() == ENHANCE_YOUR_CALM


def test_calls_that_run_and_are_reset_end_the_connection(victim):
    """Rapid reset with a handler behind each."""
    with victim.connect() as client:
        client.flood(
            streams(
                lambda stream: (
                    frame(HEADERS, END_HEADERS, stream, REQUEST)
                    + frame(DATA, END_STREAM, stream, message(b"rapid"))
                    + frame(RST_STREAM, 0, stream, number(8))
                )
            )
        )
        assert client.goaway() == ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "fault",
    [
        lambda stream: frame(WINDOW_UPDATE, 0, stream, number(0)),
        lambda stream: frame(PRIORITY, 0, stream, number(stream) + b"\0"),
        lambda stream: frame(DATA, END_STREAM, stream) + frame(DATA, 0, stream),
        lambda stream: frame(WINDOW_UPDATE, 0, stream, number(0x7FFFFFFF)),
        lambda stream: frame(DATA, 0, stream, b"\0\xff\xff\xff\xff") * 2,
    ],
    ids=[
        "zero increment",
        "self-dependency",
        "data behind the end",
        "overflow",
        "too large and more",
    ],
)
def test_calls_that_we_are_made_to_reset_end_the_connection(victim, fault):
    """Made you reset, CVE-2025-8671."""
    with victim.connect() as client:
        client.flood(
            streams(
                lambda stream: frame(HEADERS, END_HEADERS, stream, REQUEST) + fault(stream), 5000
            )
        )
        assert client.goaway() == ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "flood",
    [
        frame(PING, payload=b"12345678"),
        frame(PING, ACK, payload=b"12345678"),
        settings(),
        settings((INITIAL_WINDOW_SIZE, 1), (INITIAL_WINDOW_SIZE, 2)),
        frame(SETTINGS, ACK),
        frame(PRIORITY, 0, 1, number(0) + b"\x10"),
        frame(0xBB, 0, 0, b"x"),
        frame(0xBB, 0, 1, b"x" * 200),
        frame(RST_STREAM, 0, 1, number(8)),
    ],
    ids=["ping", "ping ack", "settings", "windows", "settings ack", "priority", "unknown",
         "unknown of a stream", "reset again"],
)  # fmt: skip
def test_frames_that_do_nothing_end_the_connection(victim, flood):
    with victim.connect() as client:
        stream = client.open("Hang")
        assert stream == 1
        client.flood(repeated(flood))
        assert client.goaway() == ENHANCE_YOUR_CALM


@pytest.mark.parametrize("method", ["Hang", "Ignore"], ids=["unary", "stream"])
@pytest.mark.parametrize(
    "payload",
    [(0, b""), (0x8, b"\xff" + bytes(255)), (0x8, b"\0")],
    ids=["empty", "padded", "no padding"],
)
def test_data_without_content_ends_the_connection(victim, method, payload):
    flags, padding = payload
    with victim.connect() as client:
        stream = client.open(method)
        client.flood(repeated(frame(DATA, flags, stream, padding)))
        assert client.goaway() == ENHANCE_YOUR_CALM


def test_calls_that_all_fail_hold_up_nobody(victim):
    """Each is answered; whoever does not read the answers is not read from."""
    with victim.connect() as client:
        sent = client.flood(
            streams(
                lambda stream: (
                    frame(HEADERS, END_HEADERS, stream, REQUEST)
                    + frame(DATA, 0, stream, b"\1")
                    + frame(HEADERS, END_HEADERS | END_STREAM, stream, literal(("x", "y")))
                ),
                12_000,
            ),
            seconds=2,
        )
        assert not sent or client.answer(23_999).status == "13"


def test_a_ping_with_each_message_is_what_grpc_go_does(victim):
    """It measures the bandwidth with every DATA that it gets; a plain budget would end it."""
    with victim.connect() as client:
        stream = client.open("Mirror")
        for _ in range(600):
            client.data(stream, message(b"x"))
            client.until(lambda f: f.kind == DATA)
            client.send(
                frame(PING, payload=b"bdp ping"),
                frame(WINDOW_UPDATE, 0, 0, number(6)),
                frame(WINDOW_UPDATE, 0, stream, number(6)),
            )
        client.ping()


def test_widening_the_window_by_little_for_ever_is_bounded(victim):
    with victim.connect() as client:
        client.open("Hang")
        client.flood(repeated(frame(WINDOW_UPDATE, 0, 0, number(1))))
        alive(client)


def alive(client: Client) -> None:
    """Whether the connection goes on or ends, it does so in good order."""
    code = client.goaway_or_ping()
    assert code in {None, ENHANCE_YOUR_CALM}
