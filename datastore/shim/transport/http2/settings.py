"""What the peer's SETTINGS say, checked (RFC 9113 section 6.5)."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from datastore.shim.transport.http2 import frames
from datastore.shim.transport.http2.frames import ConnectionFault

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6

_PAIR: Final = struct.Struct(">HI")
_LARGEST_FRAME: Final = (1 << 24) - 1


class PeerSettings(NamedTuple):
    """The settings that concern a sender of answers."""

    header_table: int = 4096
    initial_window: int = frames.DEFAULT_WINDOW
    max_frame: int = frames.MAX_FRAME


def parse(payload: bytes, known: PeerSettings) -> PeerSettings:
    """Return `known` as the frame's payload changes it; unknown settings are ignored.

    Raises:
        ConnectionFault: a value is not allowed.
    """
    if len(payload) % _PAIR.size:
        raise ConnectionFault(frames.FRAME_SIZE_ERROR, "settings are not a multiple of 6 bytes")
    table, window, frame = known
    for key, value in _PAIR.iter_unpack(payload):
        if key == HEADER_TABLE_SIZE:
            table = value
        elif key == INITIAL_WINDOW_SIZE:
            if value > frames.MAX_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "initial window too large")
            window = value
        elif key == MAX_FRAME_SIZE:
            if not frames.MAX_FRAME <= value <= _LARGEST_FRAME:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "frame size out of range")
            frame = value
        elif key == ENABLE_PUSH and value > 1:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "enable push is neither 0 nor 1")
    return PeerSettings(table, window, frame)
