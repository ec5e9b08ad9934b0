"""mvccpb.Event, encoded by hand: once an event, shared by every watcher with equal options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from datastore.shim.backends.api import RowId
from datastore.shim.mvcc import wire
from datastore.shim.mvcc.version import Change, Version

EVENTS = b"\x5a"
"""The tag of WatchResponse.events, field 11."""

_DELETE = b"\x08\x01"  # Event.type; PUT is zero and left out
_OVERHEAD = 400  # bytes of an event and its versions


class Event:
    """A change with the bytes of its values, as far as they are known.

    It holds bytes, not only versions, because the cache behind `Version.framed` may drop them
    before a watcher that lags has been served. `size` is about what keeping it costs.
    """

    __slots__ = ("framed", "previous", "previous_framed", "size", "version")

    def __init__(self, change: Change) -> None:
        self.version, self.previous = version, previous = change
        self.framed = version.framed if version.version else frame_tombstone(version)
        self.previous_framed = None if previous is None else previous.framed
        size = _OVERHEAD
        if self.framed is not None:
            size += len(self.framed)
        if self.previous_framed is not None:
            size += len(self.previous_framed)
        self.size = size

    def missing(self, *, prev_kv: bool) -> list[RowId]:
        """Return the rows whose values are needed before it can be encoded."""
        ids = [] if self.framed is not None else [self.version.id]
        if prev_kv and self.previous is not None and self.previous_framed is None:
            ids.append(self.previous.id)
        return ids

    def encode(self, *, prev_kv: bool) -> bytes | None:
        """Return the event framed as a field of WatchResponse, None while a value is missing."""
        kv = self.framed
        if kv is None:
            return None
        if self.version.tombstone:
            kv = _DELETE + kv
        if prev_kv and self.previous is not None:
            previous = self.previous_framed
            if previous is None:
                return None
            kv = kv + wire.AS_FIELD_3 + previous[1:]
        size = len(kv)
        if size < 128:
            return b"Z%c%b" % (size, kv)
        return EVENTS + wire.varint(size) + kv


def frame_tombstone(version: Version) -> bytes:
    """Return the KeyValue of a DELETE event: only the key and the deleting revision."""
    return wire.frame_key_value(version.key, 0, version.mod_revision, 0, b"", 0)


def fragments(parts: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Join encoded events into bodies of at most `limit` bytes; a larger event is a body."""
    chunk: list[bytes] = []
    size = 0
    for part in parts:
        if chunk and size + len(part) > limit:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(part)
        size += len(part)
    if chunk:
        yield b"".join(chunk)


def fill(events: Iterable[Event], values: Mapping[RowId, bytes]) -> None:
    """Complete events with the values that were fetched for them."""
    for event in events:
        row, previous = event.version, event.previous
        if event.framed is None and row.id in values:
            event.framed = row.encode(values[row.id])
        if previous is not None and event.previous_framed is None and previous.id in values:
            event.previous_framed = previous.encode(values[previous.id])
