"""HPACK beside the `hpack` package: the same fields from the same blocks, or both refuse."""

from __future__ import annotations

import hpack
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.transport.http2 import huffman
from datastore.shim.transport.http2.hpack import Decoder, Field, encode_headers
from tests.support.hpack_pair import MAX_LIST, MAX_TABLE, compare, theirs

names = st.one_of(
    st.sampled_from((b":path", b":status", b"grpc-timeout", b"content-type", b"x-bin")),
    st.binary(max_size=40),
)
values = st.one_of(st.sampled_from((b"/", b"200", b"trailers", b"99u")), st.binary(max_size=300))
headers = st.lists(st.tuples(names, values), max_size=8)


@given(st.lists(st.tuples(headers, st.booleans(), st.sampled_from((None, 0, 70, 4096)))))
def test_what_an_honest_encoder_sends_is_understood(
    blocks: list[tuple[list[Field], bool, int | None]],
):
    encoder, decoder = hpack.Encoder(), Decoder(MAX_TABLE, MAX_LIST)
    for fields, coded, table in blocks:
        if table is not None:
            encoder.header_table_size = table
        block = encoder.encode(fields, huffman=coded)
        assert decoder.decode(block) == fields
        assert decoder.decode(encode_headers(fields)) == fields


@given(headers)
def test_what_we_encode_is_understood(fields: list[Field]):
    decoder = hpack.Decoder()
    assert theirs(decoder, encode_headers(fields)) == fields
    assert not decoder.header_table.dynamic_entries


def integer(value: int, bits: int, flags: int) -> bytes:
    encoded = hpack.hpack.encode_integer(value, bits)
    encoded[0] |= flags
    return bytes(encoded)


coder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def string(data: bytes, coded: bool) -> bytes:
    data = coder.encode(data) if coded else data
    return integer(len(data), 7, 0x80 if coded else 0) + data


indexes = st.one_of(st.integers(0, 75), st.sampled_from((127, 128, 255, 1 << 20, 1 << 40)))
strings = st.one_of(
    st.builds(string, values, st.booleans()),
    st.builds(lambda data: integer(len(data), 7, 0x80) + data, st.binary(max_size=12)),
)
literals = st.builds(
    lambda index, name, value, flags: (
        integer(index, 6 if flags == 0x40 else 4, flags) + (b"" if index else name) + value
    ),
    st.one_of(st.just(0), indexes),
    strings,
    strings,
    st.sampled_from((0, 0x10, 0x40, 0x40)),
)
references = indexes.map(lambda index: integer(index, 7, 0x80))
valid_references = st.integers(1, 64).map(lambda index: integer(index, 7, 0x80))
updates = st.one_of(st.sampled_from((0, 64, 4096, 4097)), st.integers(0, 5000)).map(
    lambda size: integer(size, 5, 0x20)
)
fields = st.one_of(literals, literals, valid_references, references, updates)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Draw a block that is nearly right: pieces of a valid one, some octets changed."""
    leading = draw(st.lists(updates, max_size=3))
    block = bytearray(b"".join(leading + draw(st.lists(fields, max_size=10))))
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 3)))):
        if block:
            block[draw(st.integers(0, len(block) - 1))] = draw(st.integers(0, 255))
    return bytes(block) + draw(st.one_of(st.just(b""), st.just(b""), st.binary(max_size=6)))


@given(st.lists(st.one_of(blocks(), st.binary(max_size=60)), max_size=6))
def test_any_blocks_mean_the_same_or_are_refused_by_both(sequence: list[bytes]):
    compare(sequence)


@given(st.binary(max_size=200))
def test_huffman_codes_mean_the_same_or_are_refused_by_both(data: bytes):
    try:
        expected = bytes(decode_huffman(data))
    except hpack.HPACKDecodingError:
        assert huffman.decode(data) is None
    else:
        assert huffman.decode(data) == expected


@given(st.binary(max_size=200))
def test_a_huffman_code_is_decoded(data: bytes):
    assert huffman.decode(coder.encode(data)) == data
