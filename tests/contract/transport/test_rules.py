"""What a connection does with each request, right or wrong; where grpcio agrees, on both."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from tests.support.http2_client import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    PADDED,
    PROTOCOL_ERROR,
    RST_STREAM,
    Answer,
    Client,
    frame,
    literal,
    message,
    number,
    request_fields,
)

UNIMPLEMENTED, INTERNAL, EXPIRED, EXHAUSTED = "12", "13", "4", "8"
ONLY_OURS = pytest.mark.parametrize("transport", ["http2"], indirect=True)


@pytest.fixture
def client(target) -> Iterator[Client]:
    with target.connect() as client:
        yield client


def ask(client: Client, *fields: tuple[str, str], body: bytes = b"") -> Answer:
    """Make a call with these headers instead of the usual ones."""
    stream = client.next_stream
    client.next_stream += 2
    client.send(frame(HEADERS, END_HEADERS, stream, literal(*fields)))
    client.data(stream, message(body), end=True)
    return client.answer(stream)


def changed(name: str, value: str) -> list[tuple[str, str]]:
    """Return a request's headers with one of them changed, or left out if it is empty."""
    usual = [pair for pair in request_fields("Echo") if pair[0] != name]
    own = [(name, value)] if value else []
    return own + usual if name.startswith(":") else usual + own


# What a request says


@pytest.mark.parametrize(
    "content_type",
    ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"],
)
def test_content_types_of_grpc_are_served(client, content_type):
    answer = ask(client, *changed("content-type", content_type), body=b"x")
    assert (answer.headers[":status"], answer.status, answer.message) == ("200", "0", b"x")


@ONLY_OURS
@pytest.mark.parametrize(
    "content_type", ["", "text/html", "application/grpc-web", "application/grpcx"]
)
def test_another_content_type_is_415(client, content_type):
    answer = ask(client, *changed("content-type", content_type))
    assert answer.headers[":status"] == "415"
    assert b"application/grpc" in answer.body


@ONLY_OURS
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_another_method_is_405(client, method):
    assert ask(client, *changed(":method", method)).headers[":status"] == "405"


@pytest.mark.parametrize(
    "authority", ["", "localhost:m0", "#initially=[a;b]", "/run/x.sock", "a b"]
)
@ONLY_OURS
def test_any_authority_is_served(client, authority):
    assert ask(client, *changed(":authority", authority), body=b"x").message == b"x"


@ONLY_OURS
@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("0n", EXPIRED),
        ("00000000S", EXPIRED),
        ("99999999H", "0"),
        ("1H", "0"),
        ("5M", "0"),
        ("10S", "0"),
        ("10000m", "0"),
        ("10000000u", "0"),
        ("99999999n", "0"),
        ("123456789u", INTERNAL),
        ("1", INTERNAL),
        ("S", INTERNAL),
        ("-1S", INTERNAL),
        ("1.5S", INTERNAL),
        ("1s", INTERNAL),
        ("\u0661S", INTERNAL),
    ],
)
def test_timeouts_are_read_strictly(client, value, status):
    assert client.call("Echo", b"", ("grpc-timeout", value)).status == status


def test_the_server_ends_a_call_at_its_deadline_by_itself(client, target):
    """This client never gives up."""
    name = f"own-deadline-{target.server.transport}"
    answer = client.call("Hang", name.encode(), ("grpc-timeout", "100m"))
    assert answer.status == EXPIRED
    assert [target.tell(f"{name} {what}") for what in ("begun", "done")] == [1, 1]


# Messages


@ONLY_OURS
def test_an_unknown_encoding_is_unimplemented_and_told_what_there_is(client):
    answer = client.call("Echo", b"x", ("grpc-encoding", "snappy"))
    assert answer.status == UNIMPLEMENTED
    known = answer.headers.get("grpc-accept-encoding") or answer.trailers["grpc-accept-encoding"]
    assert {"identity", "gzip"} <= set(known.replace(" ", "").split(","))


def test_a_compressed_message_without_an_encoding_is_refused(client):
    stream = client.open("Echo")
    client.data(stream, message(gzip.compress(b"x"), 1), end=True)
    assert client.answer(stream).status == INTERNAL


def test_a_compressed_message_is_decompressed(client):
    stream = client.open("Echo", ("grpc-encoding", "gzip"))
    client.data(stream, message(gzip.compress(b"x" * 1000), 1), end=True)
    assert client.answer(stream).message == b"x" * 1000


def test_with_an_encoding_a_message_may_be_plain_all_the_same(client):
    assert client.call("Echo", b"x", ("grpc-encoding", "gzip")).message == b"x"


@pytest.mark.parametrize(
    "body", [b"not gzip", gzip.compress(b"x" * 1000)[:-12]], ids=["not gzip", "cut off"]
)
def test_what_cannot_be_decompressed_is_internal(client, body):
    stream = client.open("Echo", ("grpc-encoding", "gzip"))
    client.data(stream, message(body, 1), end=True)
    assert client.answer(stream).status == INTERNAL


@ONLY_OURS
@pytest.mark.parametrize("flag", [2, 128, 255])
def test_unknown_flags_of_a_message_are_internal(client, flag):
    stream = client.open("Echo")
    client.data(stream, message(b"x", flag), end=True)
    assert client.answer(stream).status == INTERNAL


def test_a_message_of_4_gib_is_refused_from_its_first_bytes(client):
    stream = client.open("Echo")
    client.data(stream, b"\0\xff\xff\xff\xff")
    assert client.answer(stream).status == EXHAUSTED


@ONLY_OURS
@pytest.mark.parametrize("method", ["Echo", "Mirror"], ids=["unary", "stream"])
@pytest.mark.parametrize(
    "body", [b"\0", b"\0\0\0\0", b"\0\0\0\0\5four"], ids=["flag", "prefix", "body"]
)
def test_a_message_that_is_cut_off_is_internal(client, method, body):
    stream = client.open(method)
    client.data(stream, body, end=True)
    assert client.answer(stream).status == INTERNAL


@ONLY_OURS
@pytest.mark.parametrize(
    "body",
    [b"", message(b"1") + message(b"2"), message(b"1") + b"\0"],
    ids=["none", "two", "more"],
)
def test_a_unary_call_has_one_message(client, body):
    stream = client.open("Echo")
    client.data(stream, body, end=True)
    assert client.answer(stream).status == INTERNAL


def test_a_message_may_come_octet_by_octet(client):
    stream = client.open("Mirror")
    for octet in message(b"hello"):
        client.send(frame(DATA, 0, stream, bytes([octet])))
    client.data(stream, b"", end=True)
    assert client.answer(stream).body == message(b"hello") + message(b"half-closed")


def test_messages_are_not_frames(client):
    """Two and a half messages in one frame, the rest in the next."""
    stream = client.open("Mirror")
    data = message(b"one") + message(b"") + message(b"three")
    client.data(stream, data[:-3])
    client.data(stream, data[-3:], end=True)
    assert client.answer(stream).body == data + message(b"half-closed")


def test_trailers_of_a_request_end_it(client):
    stream = client.open("Echo")
    client.data(stream, message(b"x"))
    trailers = literal(("x-checksum", "1"))
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers))
    assert client.answer(stream).message == b"x"


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("plain ~ text", "plain ~ text"),
        ("100%", "100%25"),
        ("a\nb\x00\x7f", "a%0Ab%00%7F"),
        ("é中", "%C3%A9%E4%B8%AD"),
        ("%41", "%2541"),
    ],
)
def test_messages_of_a_status_are_percent_encoded(client, text, encoded):
    answer = client.call("Status", f"9 {text}".encode())
    found = answer.trailers or answer.headers
    assert (answer.status, found["grpc-message"]) == ("9", encoded)
    assert found["x-detail-bin"].rstrip("=") == "AP8"


# Ends of streams


@ONLY_OURS
def test_an_early_error_ends_the_stream_and_tells_the_client_to_stop(client):
    """RFC 9113 section 8.1: a complete answer, then RST_STREAM with NO_ERROR."""
    stream = client.open("Echo")
    client.data(stream, b"\0\xff\xff\xff\xff")
    assert client.answer(stream).status == EXHAUSTED
    client.data(stream, b"more")
    assert client.reset_of(stream) == NO_ERROR
    client.data(stream, b"on its way", end=True)
    assert client.call("Echo", b"x").message == b"x"


@ONLY_OURS
def test_an_error_without_messages_is_one_header_block(client):
    stream = client.open("Status")
    client.data(stream, message(b"5 not there"), end=True)
    first = client.until(lambda f: f.stream == stream)
    assert (first.kind, first.flags & END_STREAM) == (HEADERS, END_STREAM)
    assert first.fields["grpc-status"] == "5"


def test_a_reset_ends_the_handler_once(client, target):
    name = f"reset-{target.server.transport}"
    stream = client.open("Wait")
    client.data(stream, message(name.encode()))
    client.until(lambda f: f.kind == DATA)
    client.send(frame(RST_STREAM, 0, stream, number(8)))
    client.ping()
    assert client.call("Echo", b"x").message == b"x"
    assert [target.tell(f"{name} {what}") for what in ("cancelled", "done")] == [1, 1]


def test_a_lost_connection_ends_its_handlers(client, target):
    name = f"lost-{target.server.transport}"
    for _ in range(3):
        stream = client.open("Wait")
        client.data(stream, message(name.encode()))
        client.until(lambda f, stream=stream: f.kind == DATA and f.stream == stream)
    client.close()
    while target.tell(f"{name} cancelled") < 3:
        pass
    assert target.tell(f"{name} done") == 3


# HTTP/2


@ONLY_OURS
@pytest.mark.parametrize(
    "block",
    [
        literal(*request_fields("Echo")) + b"\x82",
        literal(*request_fields("Echo"), (":path", "/")),
        literal((":path", "/x"), *request_fields("Echo")),
        b"\x88" + literal(*request_fields("Echo")),
        literal((":status", "200"), *request_fields("Echo")),
        literal((":unknown", "x"), *request_fields("Echo")),
        literal(*request_fields("Echo")[1:]),
        literal(*request_fields("Echo"), ("Upper", "x")),
        literal(*request_fields("Echo"), ("connection", "close")),
        literal(*request_fields("Echo"), ("transfer-encoding", "chunked")),
        literal(*request_fields("Echo"), ("te", "gzip")),
        literal(*request_fields("Echo"), ("x", "a\r\nb: c")),
        literal(*request_fields("Echo"), ("x", "a\0b")),
        literal(*request_fields("Echo"), ("x y", "")),
        literal(*request_fields("Echo"), ("", "x")),
        literal((":path", ""), *request_fields("Echo")[:2], *request_fields("Echo")[3:]),
    ],
    ids=["late pseudo-header", "late path", "path twice", "indexed status", "status", "unknown",
         "no method", "upper case", "connection", "transfer-encoding", "te", "newline", "nul",
         "space in a name", "no name", "empty path"],
)  # fmt: skip
def test_malformed_headers_are_a_stream_error(client, block):
    client.send(frame(HEADERS, END_HEADERS, 1, block))
    assert client.reset_of(1) == PROTOCOL_ERROR
    client.next_stream = 3
    assert client.call("Echo", b"x").message == b"x"


@ONLY_OURS
def test_blocks_of_refused_and_reset_streams_are_decoded_all_the_same(client):
    """Each may add to the table that the next one refers to."""
    adding = b"\x40" + literal(("x-kept", "kept"))[1:]
    client.send(frame(HEADERS, END_HEADERS, 1, literal((":status", "1")) + adding))
    assert client.reset_of(1) == PROTOCOL_ERROR
    block = literal(*request_fields("Metadata")) + b"\xbe"
    client.send(frame(HEADERS, END_HEADERS, 3, block), frame(DATA, 0, 3, message(b"")))
    second = b"\x40" + literal(("x-second", "2"))[1:]
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, second))
    assert client.answer(3).message == b'{"x-kept": ["kept"]}'
    block = literal(*request_fields("Metadata")) + b"\xbe\xbf"
    client.send(frame(HEADERS, END_HEADERS, 5, block), frame(DATA, END_STREAM, 5, message(b"")))
    assert client.answer(5).message == b'{"x-kept": ["kept"], "x-second": ["2"]}'


@ONLY_OURS
def test_padding_counts_for_the_windows(client):
    """Else it would be given back never, and a client that pads would stand still."""
    stream = client.open("Sum")
    padded = frame(DATA, PADDED, stream, bytes([250]) + message(b"x") + bytes(250))
    for _ in range(8):
        client.send(padded * 1000)
        client.ping()
    client.data(stream, b"", end=True)
    assert client.answer(stream).message == b"8000 messages, 8000 bytes"
    assert client.credits[0] > 1_000_000
    assert client.credits[stream] > 1_000_000
