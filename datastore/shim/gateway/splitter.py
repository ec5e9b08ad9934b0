"""JSON objects that come one after the other in the body of a request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from datastore.shim.gateway.codec import BadJson

_OUTSIDE: Final = re.compile(rb'["{}\[\]]')
_INSIDE: Final = re.compile(rb'["\\]')
_SPACE: Final = b" \t\r\n"


class Splitter:
    """Cuts a stream of bytes into objects; what is in them is not looked at.

    Args:
        limit: Bytes that an object may have.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._at = 0
        self._depth = 0
        self._in_text = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the objects that `data` completes.

        Raises:
            BadJson: something is no object, or larger than the limit.
        """
        self._buffer += data
        while (end := self._find_end()) is not None:
            yield bytes(self._buffer[:end])
            del self._buffer[:end]
            self._at = 0
        if len(self._buffer) > self._limit:
            raise BadJson(f"an object is larger than {self._limit} bytes")

    def _find_end(self) -> int | None:
        """Return where the object that is under way ends, if it is all there."""
        buffer = self._buffer
        if not self._depth:
            kept = buffer.lstrip(_SPACE)
            del buffer[: len(buffer) - len(kept)]
            if buffer and buffer[0] != 0x7B:
                raise BadJson(f"invalid character {chr(buffer[0])!r} where an object begins")
        while found := (_INSIDE if self._in_text else _OUTSIDE).search(buffer, self._at):
            mark = found[0]
            self._at = found.end()
            if mark == b"\\":
                self._at += 1  # whatever is escaped, it may still have to come
            elif mark == b'"':
                self._in_text = not self._in_text
            elif mark in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                if not self._depth:
                    return self._at
        self._at = max(self._at, len(buffer))
        return None
