"""Header blocks, beside the `hpack` package."""

from __future__ import annotations

from collections.abc import Iterator

import hpack

from tests.support.hpack_pair import compare

REQUEST = [(":method", "POST"), (":path", "/etcdserverpb.KV/Range"), ("grpc-timeout", "99u")]


def _sized(*blocks: bytes) -> bytes:
    return b"".join(bytes([len(block)]) + block for block in blocks)


def _blocks(data: bytes) -> Iterator[bytes]:
    """Cut what is fuzzed into blocks: an octet says how long each of them is."""
    while data:
        end = 1 + data[0]
        yield data[1:end]
        data = data[end:]


def _seed(*, coded: bool) -> bytes:
    encoder = hpack.Encoder()
    blocks = [bytes(encoder.encode(REQUEST, huffman=coded)) for _ in range(2)]
    encoder.header_table_size = 64
    return _sized(*blocks, bytes(encoder.encode([*REQUEST, ("a", "b" * 40)], huffman=coded)))


SEEDS = [_seed(coded=True), _seed(coded=False), _sized(b"\x20\x3f\xe1\x1f\x82", b"\xbe")]


def attempt(data: bytes) -> None:
    """Decode the blocks of a connection."""
    compare(_blocks(data))
