"""Frames as RFC 9113 writes them."""

from __future__ import annotations

import pytest

from datastore.shim.transport.http2 import frames
from datastore.shim.transport.http2.frames import ConnectionFault


def test_a_head_has_length_kind_flags_and_stream() -> None:
    head = frames.head(0x012345, frames.DATA, frames.END_STREAM, 7)
    assert head == bytes.fromhex("012345 00 01 00000007")
    assert frames.unpack_head(head) == (0x0123, 0x45, frames.DATA, frames.END_STREAM, 7)


def test_control_frames_are_the_octets_of_the_rfc() -> None:
    assert frames.rst_stream(3, frames.CANCEL) == bytes.fromhex("000004 03 00 00000003 00000008")
    assert frames.window_update(0, 5) == bytes.fromhex("000004 08 00 00000000 00000005")
    assert frames.ping(b"12345678", frames.ACK) == bytes.fromhex("000008 06 01 00000000") + (
        b"12345678"
    )
    assert frames.settings([(4, 1 << 20)]) == bytes.fromhex("000006 04 00 00000000 0004 00100000")
    assert frames.goaway(9, frames.ENHANCE_YOUR_CALM, "why") == (
        bytes.fromhex("00000b 07 00 00000000 00000009 0000000b") + b"why"
    )


def test_padding_is_taken_off() -> None:
    assert frames.without_padding(b"\x03abc\0\0\0", frames.PADDED) == b"abc"
    assert frames.without_padding(b"\x00", frames.PADDED) == b""
    assert frames.without_padding(b"\x03abc", 0) == b"\x03abc"


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x04abc", b"\xff" * 200])
def test_padding_as_long_as_the_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(ConnectionFault):
        frames.without_padding(payload, frames.PADDED)
