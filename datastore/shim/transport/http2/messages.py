"""gRPC messages in a stream of bytes: a flag, four bytes of length, the message."""

from __future__ import annotations

import zlib
from typing import Final

from datastore.shim.transport.api import Code, RpcError

PREFIX_SIZE: Final = 5
_GZIP: Final = 31
"""zlib's window bits for a gzip frame."""
MAX_SEND: Final = (1 << 31) - 1
"""etcd: v3rpc/grpc.go, maxSendBytes."""


def too_large(size: int, limit: int) -> RpcError:
    """Return the refusal of a message above the receive limit, in grpc-go's words."""
    return RpcError(
        Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {limit})"
    )


def too_large_to_send(size: int) -> RpcError:
    """Return the refusal of an answer above what etcd sends, in grpc-go's words."""
    text = f"grpc: trying to send message larger than max ({size} vs. {MAX_SEND})"
    return RpcError(Code.RESOURCE_EXHAUSTED, text)


def truncated() -> RpcError:
    """Return the refusal of a message that the client did not finish."""
    return RpcError(Code.INTERNAL, "unexpected EOF")


class Assembler:
    """Cuts what arrives on one stream into messages.

    Args:
        limit: Bytes that a message may have, also after decompression.
        gzip: Whether the request says that messages may be compressed.

    Attributes:
        held: Bytes of the message under way.
    """

    __slots__ = ("_buffer", "_gzip", "_limit", "_needed", "held")

    def __init__(self, limit: int, *, gzip: bool) -> None:
        self._limit = limit
        self._gzip = gzip
        # One buffer, however small the parts are that a peer sends.
        self._buffer = bytearray()
        self.held = 0
        # Bytes of the message under way with its prefix, 0 while that is not whole.
        self._needed = 0

    @property
    def is_empty(self) -> bool:
        """Whether no message is under way."""
        return not self.held

    def whole(self, chunk: bytes) -> bytes | None:
        """Return the message that `chunk` is; None if it is anything else, for `feed`. Hot."""
        size = len(chunk) - PREFIX_SIZE
        if (
            self.held
            or not 0 <= size <= self._limit
            or chunk[0]
            or int.from_bytes(chunk[1:PREFIX_SIZE], "big") != size
        ):
            return None
        return chunk[PREFIX_SIZE:]

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the messages that `chunk` completes.

        Raises:
            RpcError: a message is too large, told from its prefix, or cannot be decompressed.
        """
        buffer = self._buffer
        if not buffer:
            data: bytes | bytearray = chunk
        else:
            buffer += chunk
            data = buffer
        self.held += len(chunk)
        if self.held < (self._needed or PREFIX_SIZE):
            if data is chunk:
                buffer += chunk
            return []
        messages: list[bytes] = []
        position, end = 0, len(data)
        self._needed = 0
        while end - position >= PREFIX_SIZE:
            size = int.from_bytes(data[position + 1 : position + PREFIX_SIZE], "big")
            self._check(data[position], size)
            after = position + PREFIX_SIZE + size
            if after > end:
                self._needed = PREFIX_SIZE + size
                break
            body = bytes(data[position + PREFIX_SIZE : after])
            messages.append(self._inflate(body) if data[position] else body)
            position = after
        self._buffer = bytearray(data[position:])
        self.held = end - position
        return messages

    def _check(self, flag: int, size: int) -> None:
        if size > self._limit:
            raise too_large(size, self._limit)
        if flag > 1:
            raise RpcError(Code.INTERNAL, f"grpc: received unexpected payload format {flag}")
        if flag and not self._gzip:
            raise RpcError(
                Code.INTERNAL,
                "grpc: compressed flag set with identity or empty encoding",
            )

    def _inflate(self, body: bytes) -> bytes:
        inflater = zlib.decompressobj(_GZIP)
        try:
            message = inflater.decompress(body, self._limit + 1)
        except zlib.error as error:
            text = f"grpc: failed to decompress the received message: {error}"
            raise RpcError(Code.INTERNAL, text) from None
        if len(message) > self._limit:
            raise RpcError(
                Code.RESOURCE_EXHAUSTED,
                f"grpc: received message after decompression larger than max {self._limit}",
            )
        if not inflater.eof:
            raise RpcError(Code.INTERNAL, "grpc: failed to decompress the received message: cut")
        return message
