"""HTTP/2 frames (RFC 9113 section 4 and 6): numbers, building, and the two kinds of fault."""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE: Final = 9
PING_SIZE: Final = HEAD_SIZE + 8
MAX_FRAME: Final = 16384
"""Largest payload that we take: the default, and what gRPC clients send at most."""
DEFAULT_WINDOW: Final = 65_535
MAX_WINDOW: Final = (1 << 31) - 1
MAX_STREAM_ID: Final = (1 << 31) - 1

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

_HEAD: Final = struct.Struct(">HBBBI")
_GRPC_HEAD: Final = struct.Struct(">HBBBIBI")
_WORD: Final = struct.Struct(">I")
_SETTING: Final = struct.Struct(">HI")

unpack_head = _HEAD.unpack_from
"""Length without its last byte, the last byte, kind, flags, stream."""
unpack_message_head = _GRPC_HEAD.unpack_from
"""As `unpack_head`, then the compressed flag and the length of a gRPC message."""
pack_message_head = _GRPC_HEAD.pack


class ConnectionFault(Exception):
    """The peer broke a rule, or asks for too much: the connection ends with GOAWAY."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class StreamFault(Exception):
    """The peer broke a rule that concerns one stream only: it ends with RST_STREAM."""

    def __init__(self, stream_id: int, code: int, text: str) -> None:
        super().__init__(text)
        self.stream_id = stream_id
        self.code = code


def head(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """Return a frame's head."""
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def rst_stream(stream_id: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return head(4, RST_STREAM, 0, stream_id) + _WORD.pack(code)


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return head(4, WINDOW_UPDATE, 0, stream_id) + _WORD.pack(increment)


def ping(payload: bytes, flags: int = 0) -> bytes:
    """Return a PING frame."""
    return head(8, PING, flags, 0) + payload


def goaway(last_stream_id: int, code: int, text: str = "") -> bytes:
    """Return a GOAWAY frame."""
    payload = _WORD.pack(last_stream_id) + _WORD.pack(code) + text.encode()
    return head(len(payload), GOAWAY, 0, 0) + payload


def settings(pairs: list[tuple[int, int]]) -> bytes:
    """Return a SETTINGS frame."""
    payload = b"".join(_SETTING.pack(key, value) for key, value in pairs)
    return head(len(payload), SETTINGS, 0, 0) + payload


def word(payload: bytes) -> int:
    """Return the first four bytes as a number."""
    number: int = _WORD.unpack_from(payload)[0]
    return number


def without_padding(payload: bytes, flags: int) -> bytes:
    """Return a payload without its padding; the padding must be shorter than the rest."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(FRAME_SIZE_ERROR, "padded frame without a length of the padding")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "padding is longer than the frame")
    return payload[1 : len(payload) - padding]
