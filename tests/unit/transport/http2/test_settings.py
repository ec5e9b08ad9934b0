"""SETTINGS of the peer."""

from __future__ import annotations

import struct

import pytest

from datastore.shim.transport.http2 import frames
from datastore.shim.transport.http2.frames import ConnectionFault
from datastore.shim.transport.http2.settings import PeerSettings, parse


def payload(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack(">HI", *pair) for pair in pairs)


def test_what_concerns_us_is_taken_and_the_rest_stays() -> None:
    known = parse(payload((4, 10), (99, 7)), PeerSettings())
    assert known == PeerSettings(initial_window=10)
    assert parse(payload((5, 1 << 20), (1, 0)), known) == PeerSettings(0, 10, 1 << 20)
    assert parse(b"", known) == known


def test_the_last_of_two_values_counts() -> None:
    assert parse(payload((4, 1), (4, 2)), PeerSettings()).initial_window == 2


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (payload((4, 1 << 31)), frames.FLOW_CONTROL_ERROR),
        (payload((5, 16_383)), frames.PROTOCOL_ERROR),
        (payload((5, 1 << 24)), frames.PROTOCOL_ERROR),
        (payload((2, 2)), frames.PROTOCOL_ERROR),
        (b"\0\1\0", frames.FRAME_SIZE_ERROR),
    ],
)
def test_a_value_that_is_not_allowed_ends_the_connection(raw: bytes, code: int) -> None:
    with pytest.raises(ConnectionFault) as caught:
        parse(raw, PeerSettings())
    assert caught.value.code == code
