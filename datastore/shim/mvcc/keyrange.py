"""Half-open ranges of keys, and how `(key, range_end)` on the wire means them (contract 2.2)."""

from __future__ import annotations

from typing import NamedTuple

FROM_KEY = b"\x00"
"""The range_end that means: every key from `key` on."""


class KeyRange(NamedTuple):
    """Keys from `start` (inclusive) to `stop` (exclusive); None: no upper bound.

    Keys are raw unsigned bytes. A range whose stop is not above its start holds nothing.
    """

    start: bytes
    stop: bytes | None

    @classmethod
    def from_wire(cls, key: bytes, end: bytes) -> KeyRange:
        """Return the range that `(key, range_end)` of a request means."""
        if not end:
            return cls(key, key + b"\x00")
        return cls(key, None if end == FROM_KEY else end)

    @classmethod
    def prefix(cls, prefix: bytes) -> KeyRange:
        """Return the range of the keys that start with `prefix`."""
        return cls.from_wire(prefix, prefix_end(prefix))

    @property
    def is_empty(self) -> bool:
        """Whether no key can be in the range."""
        return self.stop is not None and self.stop <= self.start

    def contains(self, key: bytes) -> bool:
        """Whether `key` is in the range."""
        return self.start <= key and (self.stop is None or key < self.stop)

    def covers(self, other: KeyRange) -> bool:
        """Whether every key of `other` is in this range."""
        if other.is_empty:
            return True
        if self.start > other.start:
            return False
        return self.stop is None or (other.stop is not None and other.stop <= self.stop)

    def intersects(self, other: KeyRange) -> bool:
        """Whether some key is in both ranges."""
        if self.is_empty or other.is_empty:
            return False
        return (other.stop is None or self.start < other.stop) and (
            self.stop is None or other.start < self.stop
        )


def prefix_end(prefix: bytes) -> bytes:
    """Return the range_end that selects the keys starting with `prefix`, as clients compute it."""
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return FROM_KEY
    return stem[:-1] + bytes((stem[-1] + 1,))
