"""Pre-encoded values in memory, bounded in bytes; the oldest go first."""

from __future__ import annotations

from collections import deque

from datastore.shim.mvcc.version import Version

OVERHEAD_BYTES = 64
"""What one cached value costs beside its bytes: the object's header and its place in the queue."""

SWEEP_PLACES = 1024
"""Places of dropped values that are not worth a sweep."""


class ValueCache:
    """Bounds how many bytes `Version.framed` of all versions take together.

    First in, first out: a list that is read page by page and a key that is read for ever are
    both served well enough, and reading costs nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._queue: deque[Version] = deque()
        self._dropped = 0  # places in the queue whose value is gone already

    def add(self, version: Version, framed: bytes) -> None:
        """Keep `framed` with its version, and let the oldest go. Hot: once a write."""
        if version.framed is not None:
            self.drop(version)
        version.framed = framed
        self._queue.append(version)
        self.bytes += len(framed) + OVERHEAD_BYTES
        if self.bytes > self.limit:
            self._evict()

    def adopt(self, version: Version) -> None:
        """Count a version that comes with its bytes. Hot: once a write."""
        framed = version.framed
        if framed is not None:
            self._queue.append(version)
            self.bytes += len(framed) + OVERHEAD_BYTES
            if self.bytes > self.limit:
                self._evict()

    def drop(self, version: Version) -> None:
        """Forget the value of a version that is cached; without one nothing happens."""
        if version.framed is not None:
            self.bytes -= len(version.framed) + OVERHEAD_BYTES
            version.framed = None
            self._dropped += 1
            if self._dropped > max(len(self._queue) // 2, SWEEP_PLACES):
                self._sweep()

    def __len__(self) -> int:
        return sum(version.framed is not None for version in self._queue)

    def _evict(self) -> None:
        queue = self._queue
        while queue and self.bytes > self.limit:
            version = queue.popleft()
            framed = version.framed
            # None: dropped since. A value that was dropped and added again has two places in
            # the queue; that it leaves by the first one is harmless.
            if framed is None:
                self._dropped -= 1
            else:
                self.bytes -= len(framed) + OVERHEAD_BYTES
                version.framed = None

    def _sweep(self) -> None:
        """Give up the places of dropped values, which keep their versions alive."""
        self._queue = deque(dict.fromkeys(v for v in self._queue if v.framed is not None))
        self._dropped = 0
