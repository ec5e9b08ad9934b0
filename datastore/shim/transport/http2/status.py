"""Answers as header blocks: the constants, and statuses with their percent-encoded message."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

from datastore.shim.transport.api import RpcError
from datastore.shim.transport.http2.hpack import encode_literal

_STATUS_200: Final = b"\x88"  # indexed field 8 of the static table
_CONTENT_TYPE: Final = encode_literal(b"content-type", b"application/grpc")
RESPONSE: Final = _STATUS_200 + _CONTENT_TYPE
"""What is before the first message."""
OK_TRAILERS: Final = encode_literal(b"grpc-status", b"0")
ACCEPT_ENCODING: Final = ("grpc-accept-encoding", "identity,gzip")

_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {0x25}
_RESERVED: Final = ("grpc-", ":")


def percent_encode(message: str) -> bytes:
    """Return a grpc-message: UTF-8 with everything but printable ASCII, and %, escaped."""
    raw = message.encode("utf-8", "replace")
    if all(byte in _PLAIN for byte in raw):
        return raw
    return b"".join(bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in raw)


def encode_metadata(pairs: Sequence[tuple[str, str | bytes]]) -> bytes:
    """Return metadata as header fields; a key that ends in ``-bin`` has bytes."""
    return b"".join(
        encode_literal(key.lower().encode(), _encode_value(key, value)) for key, value in pairs
    )


def _encode_value(key: str, value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return base64.b64encode(raw).rstrip(b"=") if key.lower().endswith("-bin") else raw


def trailers(error: RpcError | None, extra: Sequence[tuple[str, str | bytes]]) -> bytes:
    """Return the block that ends a call."""
    if error is None:
        return OK_TRAILERS + encode_metadata(extra)
    block = encode_literal(b"grpc-status", b"%d" % error.code)
    if error.message:
        block += encode_literal(b"grpc-message", percent_encode(error.message))
    return block + encode_metadata(extra) + encode_metadata(error.trailers)


def http_refusal(status: int) -> bytes:
    """Return the head of an answer to what is not a gRPC request."""
    return encode_literal(b":status", b"%d" % status) + encode_literal(
        b"content-type", b"text/plain; charset=utf-8"
    )
