"""Header blocks of requests."""

from __future__ import annotations

import pytest

from datastore.shim.transport.api import Call, Code
from datastore.shim.transport.http2.headers import (
    HeadReader,
    Malformed,
    Methods,
    check,
    check_trailers,
)
from datastore.shim.transport.http2.hpack import Field, encode_literal

PSEUDO: list[Field] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/t.T/Echo"),
    (b":authority", b"#initially=[a;b]"),
]
GRPC: Field = (b"content-type", b"application/grpc")


def echo(_call: Call, body: bytes) -> bytes:
    return body


def reader() -> HeadReader:
    methods = Methods()
    methods.unary["/t.T/Echo"] = echo
    return HeadReader(methods)


def indexed(name: bytes, value: bytes) -> bytes:
    """Return a literal that the decoder adds to its table."""
    return bytes((0x40, len(name))) + name + bytes((len(value),)) + value


def block(*more: Field) -> bytes:
    return b"".join(encode_literal(*field) for field in (*PSEUDO, GRPC, *more))


def test_a_request_finds_its_handler_and_its_timeout() -> None:
    head, timeout = reader().read(block((b"grpc-timeout", b"5S")))
    assert (head.path, head.unary, timeout) == ("/t.T/Echo", echo, 5.0)


def test_a_repeated_block_is_not_read_again_and_a_timeout_shares_the_head() -> None:
    heads = reader()
    first = heads.read(block((b"grpc-timeout", b"5S")))
    assert heads.read(block((b"grpc-timeout", b"5S"))) is first
    other, timeout = heads.read(block((b"grpc-timeout", b"6S")))
    assert other is first[0]
    assert timeout == 6.0


def test_a_block_means_something_else_once_the_table_has_changed() -> None:
    heads = reader()
    newest = block() + b"\xbe"
    heads.read(block() + indexed(b"user", b"a"))
    assert heads.read(newest)[0].metadata["user"] == ["a"]
    assert heads.read(newest)[0].metadata["user"] == ["a"]
    with pytest.raises(Malformed):
        heads.read(block() + indexed(b"user", b"b") + encode_literal(b"te", b"gzip"))
    assert heads.read(newest)[0].metadata["user"] == ["b"]
    refused, _ = heads.read(
        block() + indexed(b"user", b"c") + encode_literal(b"grpc-timeout", b"soon")
    )
    assert refused.refusal is not None
    assert heads.read(newest)[0].metadata["user"] == ["c"]
    heads.decoder.decode(indexed(b"user", b"d"))
    assert heads.read(newest)[0].metadata["user"] == ["d"]


def test_metadata_is_what_the_caller_added() -> None:
    head, _ = reader().read(
        block((b"user", b"a"), (b"user", b"b"), (b"key-bin", b"AP8,AQ=="), (b"te", b"trailers"))
    )
    assert dict(head.metadata) == {"user": ["a", "b"], "key-bin": [b"\0\xff", b"\x01"]}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"/t.T/Nothing", "unknown method Nothing for service t.T"),
        (b"/u.U/Nothing", "unknown service u.U"),
    ],
)
def test_an_unknown_method_is_refused_in_the_words_of_grpc_go(path: bytes, text: str) -> None:
    fields = [*PSEUDO[:2], (b":path", path), GRPC]
    head, _ = reader().read(b"".join(encode_literal(*field) for field in fields))
    assert head.refusal is not None
    assert (head.refusal.code, head.refusal.message) == (Code.UNIMPLEMENTED, text)


@pytest.mark.parametrize("value", [b"application/grpc+proto", b"Application/grpc;v=1"])
def test_variants_of_the_content_type_are_taken(value: bytes) -> None:
    assert check([*PSEUDO, (b"content-type", value)]).http_status == 0


@pytest.mark.parametrize(
    "value", [b"", b"text/plain", b"application/grpc-web", b"application/json"]
)
def test_another_content_type_is_answered_without_grpc(value: bytes) -> None:
    assert check([*PSEUDO, (b"content-type", value)]).http_status == 415
    assert check(PSEUDO).http_status == 415


def test_another_encoding_is_refused_with_those_that_are_known() -> None:
    head = check([*PSEUDO, GRPC, (b"grpc-encoding", b"zstd")])
    assert head.refusal is not None
    assert head.refusal.code is Code.UNIMPLEMENTED
    assert head.refusal.trailers == [("grpc-accept-encoding", "identity,gzip")]
    assert check([*PSEUDO, GRPC, (b"grpc-encoding", b"gzip")]).gzip


@pytest.mark.parametrize(
    "fields",
    [
        [],
        PSEUDO[1:],
        [*PSEUDO[:2], (b":path", b"")],
        [*PSEUDO, PSEUDO[0]],
        [*PSEUDO, (b":status", b"200")],
        [GRPC, *PSEUDO],
        [*PSEUDO, (b"Upper", b"x")],
        [*PSEUDO, (b"", b"x")],
        [*PSEUDO, (b"a b", b"x")],
        [*PSEUDO, (b"a", b"x\ny")],
        [*PSEUDO, (b"connection", b"close")],
        [*PSEUDO, (b"transfer-encoding", b"chunked")],
        [*PSEUDO, (b"te", b"gzip")],
        [*PSEUDO, (b"content-length", b"-1")],
    ],
)
def test_what_is_no_request_is_malformed(fields: list[Field]) -> None:
    with pytest.raises(Malformed):
        check(fields)


def test_trailers_have_no_pseudo_headers() -> None:
    check_trailers([(b"a", b"b")])
    with pytest.raises(Malformed):
        check_trailers([(b":path", b"/")])
