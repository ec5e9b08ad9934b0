"""HPACK as RFC 7541 writes it, and what the decoder refuses."""

from __future__ import annotations

import pytest

from datastore.shim.transport.http2 import huffman
from datastore.shim.transport.http2.hpack import (
    CACHED_BLOCKS,
    NO_TABLE,
    Decoder,
    Field,
    HeaderListTooLarge,
    HpackError,
    encode_headers,
    encode_literal,
)

REQUEST_1 = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":path", b"/"),
    (b":authority", b"www.example.com"),
]
REQUEST_2 = [*REQUEST_1, (b"cache-control", b"no-cache")]
REQUEST_3 = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]
DATE = b"Mon, 21 Oct 2013 20:13:21 GMT"
LOCATION = (b"location", b"https://www.example.com")
RESPONSE_1 = [(b":status", b"302"), (b"cache-control", b"private"), (b"date", DATE), LOCATION]
RESPONSE_2 = [(b":status", b"307"), *RESPONSE_1[1:]]
COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
RESPONSE_3 = [
    (b":status", b"200"),
    (b"cache-control", b"private"),
    (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
    LOCATION,
    (b"content-encoding", b"gzip"),
    (b"set-cookie", COOKIE),
]


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", None),
        ("040c 2f73 616d 706c 652f 7061 7468", (b":path", b"/sample/path")),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", (b"password", b"secret")),
        ("82", (b":method", b"GET")),
    ],
    ids=["C.2.1", "C.2.2", "C.2.3", "C.2.4"],
)
def test_single_fields_of_appendix_c(block: str, field: Field | None):
    decoder = Decoder()
    expected = field or (b"custom-key", b"custom-header")
    assert decoder.decode(bytes.fromhex(block)) == [expected]
    adds = field is None
    assert (decoder.generation > 0) == adds
    if adds:
        assert decoder.decode(b"\xbe") == [expected]


@pytest.mark.parametrize(
    "blocks",
    [
        (
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ),
        (
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ),
    ],
    ids=["C.3", "C.4"],
)
def test_requests_of_appendix_c(blocks: tuple[str, ...]):
    decoder = Decoder()
    decoded = [decoder.decode(bytes.fromhex(block)) for block in blocks]
    assert decoded == [REQUEST_1, REQUEST_2, REQUEST_3]


@pytest.mark.parametrize(
    "blocks",
    [
        (
            (
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133"
                "2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70"
                "6c65 2e63 6f6d"
            ),
            "4803 3330 37c1 c0bf",
            (
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d"
                "54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049"
                "5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e"
                "3d31"
            ),
        ),
        (
            (
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6"
                "2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3"
            ),
            "4883 640e ffc1 c0bf",
            (
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab"
                "77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f"
                "9587 3160 65c0 03ed 4ee5 b106 3d50 07"
            ),
        ),
    ],
    ids=["C.5", "C.6"],
)
def test_responses_of_appendix_c_evict_from_a_table_of_256_octets(blocks: tuple[str, ...]):
    decoder = Decoder(max_table=256)
    decoded = [decoder.decode(bytes.fromhex(block)) for block in blocks]
    assert decoded == [RESPONSE_1, RESPONSE_2, RESPONSE_3]
    assert decoder.decode(b"\xbe\xbf\xc0") == [RESPONSE_3[5], RESPONSE_3[4], RESPONSE_3[2]]
    with pytest.raises(HpackError, match="no field 65"):
        decoder.decode(b"\xc1")


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b"\x80", "no field 0"),
        (b"\xbe", "no field 62"),
        (b"\xff\x80\x01", "no field 255"),
        (b"\x7f\x00\x01a", "no name 63"),
        (b"\xff", "cut off"),
        (b"\xff\x80\x80\x80\x80\x00", "more than 5 octets"),
        (b"\x3f\xff\xff\xff\xff\x07", "more than 5 octets"),
        (b"\x00", "a string is missing"),
        (b"\x00\x01", "a string is cut off"),
        (b"\x00\x01a", "a string is missing"),
        (b"\x00\x01a\x7f\xff\xff\xff\x7f", "a string is cut off"),
        (b"\x00\x01a\x81", "a string is cut off"),
        (b"\x00\x01a\x84\xff\xff\xff\xff", "EOS"),
        (b"\x00\x01a\x81\xff", "padded"),
        (b"\x00\x01a\x82\x07\xff", "padded"),
        (b"\x00\x01a\x81\x18", "padded"),
        (b"\x82\x20", "behind a field"),
        (b"\x20\x20\x20", "too many"),
        (b"\x3f\xe2\x1f", "4097 octets, above 4096"),
    ],
)
def test_what_breaks_the_rules_is_refused(block: bytes, reason: str):
    with pytest.raises(HpackError, match=reason):
        Decoder().decode(block)


def test_padding_of_up_to_seven_ones_is_taken():
    assert huffman.decode(b"\x1f") == b"a"
    assert huffman.decode(b"\xf8\xff") is None
    assert huffman.decode(b"") == b""


def test_a_size_update_to_nothing_empties_the_table_and_up_again_allows_entries():
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder.decode(b"\x20\x3f\xe1\x1f\x82") == [(b":method", b"GET")]
    with pytest.raises(HpackError, match="no field 62"):
        decoder.decode(b"\xbe")
    assert decoder.decode(b"\x40\x01c\x01d\xbe") == [(b"c", b"d")] * 2


def test_an_entry_larger_than_the_table_empties_it_and_is_a_field_all_the_same():
    decoder = Decoder(max_table=64)
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder.decode(b"\x40\x01c\x20" + b"d" * 32) == [(b"c", b"d" * 32)]
    with pytest.raises(HpackError, match="no field 62"):
        decoder.decode(b"\xbe")


def test_a_name_may_come_from_the_entry_that_its_own_field_evicts():
    """RFC 7541 §4.4."""
    decoder = Decoder(max_table=64)
    decoder.decode(b"\x40\x04name\x1a" + b"v" * 26)
    assert decoder.decode(b"\x7e\x1b" + b"w" * 27) == [(b"name", b"w" * 27)]
    assert decoder.decode(b"\xbe") == [(b"name", b"w" * 27)]


def test_many_references_to_one_large_entry_are_refused_while_they_are_counted():
    decoder = Decoder()
    decoder.decode(b"\x40" + encode_literal(b"a", b"x" * 4000)[1:])
    with pytest.raises(HeaderListTooLarge, match="above 16384"):
        decoder.decode(b"\xbe" * 5)


def test_a_list_of_exactly_the_allowed_size_is_taken():
    size = len(b":methodGET") + 32
    assert len(Decoder(max_list=size).decode(b"\x82")) == 1
    with pytest.raises(HeaderListTooLarge):
        Decoder(max_list=size - 1).decode(b"\x82")


def test_an_equal_block_is_decoded_once_for_each_state_of_the_table():
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01b")
    first = decoder.decode(b"\xbe\x82")
    assert decoder.decode(b"\xbe\x82") is first
    decoder.decode(b"\x40\x01c\x01d")
    assert decoder.decode(b"\xbe\x82") == [(b"c", b"d"), (b":method", b"GET")]


def test_a_block_that_adds_to_the_table_adds_every_time():
    decoder = Decoder(max_table=4096)
    for _ in range(3):
        assert decoder.decode(b"\x40\x01a\x01b") == [(b"a", b"b")]
    assert decoder.decode(b"\xbe\xbf\xc0") == [(b"a", b"b")] * 3


def test_a_size_update_that_changes_nothing_does_not_hide_an_earlier_meaning():
    decoder = Decoder(max_table=0)
    assert decoder.decode(b"\x20\x82") == decoder.decode(b"\x20\x82") == [(b":method", b"GET")]


def test_the_blocks_that_are_remembered_are_few():
    decoder = Decoder()
    for number in range(10 * CACHED_BLOCKS):
        decoder.decode(encode_literal(b"n", b"%d" % number))
        assert len(decoder._cache) <= CACHED_BLOCKS
    decoder.decode(encode_literal(b"n", b"x" * 300))
    assert not any(len(block) > 300 for block in decoder._cache)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 16000])
def test_what_is_encoded_is_decoded_again_and_adds_nothing(size: int):
    decoder = Decoder(max_list=40000)
    fields = [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"x" * (size + 1), b"y" * size),
    ]
    block = encode_headers(fields)
    assert decoder.decode(block) == fields
    assert decoder.generation == 0
    assert decoder.decode(NO_TABLE + block) == fields


def test_fields_of_the_static_table_take_one_octet():
    assert encode_headers([(b":status", b"200")]) == b"\x88"
    assert encode_literal(b":status", b"418") == b"\x08\x03418"
