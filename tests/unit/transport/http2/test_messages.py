"""Messages cut out of a stream of bytes."""

from __future__ import annotations

import gzip
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.transport.api import Code, RpcError
from datastore.shim.transport.http2.messages import Assembler

LIMIT = 1000


def prefixed(body: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(body)) + body


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_messages_come_out_however_they_are_cut(bodies: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(prefixed(body) for body in bodies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    assembler = Assembler(LIMIT, gzip=False)
    found: list[bytes] = []
    for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += assembler.feed(raw[begin:end])
    assert found == bodies
    assert assembler.is_empty


def test_a_message_under_way_is_told() -> None:
    assembler = Assembler(LIMIT, gzip=False)
    assert assembler.feed(prefixed(b"abc")[:6]) == []
    assert not assembler.is_empty
    assert assembler.held == 6
    assert assembler.feed(b"bc") == [b"abc"]


def test_a_message_too_large_is_refused_by_its_prefix_in_the_words_of_grpc() -> None:
    with pytest.raises(RpcError) as caught:
        Assembler(LIMIT, gzip=False).feed(struct.pack(">BI", 0, 1 << 31))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert caught.value.message == ("grpc: received message larger than max (2147483648 vs. 1000)")


def test_a_compressed_message_is_decompressed() -> None:
    assembler = Assembler(LIMIT, gzip=True)
    raw = prefixed(gzip.compress(b"a" * 900), 1) + prefixed(b"plain")
    assert assembler.feed(raw) == [b"a" * 900, b"plain"]


def test_what_a_compressed_message_becomes_is_bounded() -> None:
    with pytest.raises(RpcError) as caught:
        Assembler(LIMIT, gzip=True).feed(prefixed(gzip.compress(bytes(1 << 20), 9)[:1000], 1))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("raw", "allowed"),
    [
        (prefixed(gzip.compress(b"a"), 1), False),
        (prefixed(b"a", 2), True),
        (prefixed(b"no gzip", 1), True),
        (prefixed(gzip.compress(b"abc")[:-4], 1), True),
    ],
    ids=["not announced", "unknown flag", "no gzip", "cut"],
)
def test_a_broken_compression_is_an_error_of_the_call(raw: bytes, allowed: bool) -> None:
    with pytest.raises(RpcError) as caught:
        Assembler(LIMIT, gzip=allowed).feed(raw)
    assert caught.value.code is Code.INTERNAL
