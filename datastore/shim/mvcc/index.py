"""The index: every retained version of every key, in memory, without values.

`latest` holds the newest version of each key, a tombstone too while history is retained.
`history` holds all retained versions, ascending, of those keys that have more than one.
`keys` and `dead` are ordered: all keys, and those whose latest version is a tombstone; so the
number of live keys in a range is a difference of four bisections.
`births` are the changes that made a key live or dead since the compaction, in order: the count at
a revision a little back is the current one minus a few of these.
`recent` are all changes since the compaction: what a compaction has to look at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter

from sortedcontainers import SortedList

from datastore.shim.backends.api import SUB_BITS, Meta
from datastore.shim.mvcc.keyrange import KeyRange
from datastore.shim.mvcc.version import Version

CHUNK = 256
"""Keys looked at in one go by a scan that wants fewer than the range holds."""

_id = attrgetter("id")


class Index:
    """Versions by key and by revision. A revision None means: now."""

    def __init__(self) -> None:
        self.latest: dict[bytes, Version] = {}
        self.history: dict[bytes, list[Version]] = {}
        self.keys: SortedList[bytes] = SortedList()
        self.dead: SortedList[bytes] = SortedList()
        self.births: list[Version] = []
        self.recent: list[Version] = []

    @classmethod
    def load(cls, pages: Iterable[Sequence[Meta]], compacted: int) -> Index:
        """Return an index of stored rows, which come in ascending order.

        Rows that a compaction should have removed are still in it: `compact` finds them.
        """
        index = cls()
        latest, history = index.latest, index.history
        bound = (compacted + 1) << SUB_BITS
        for page in pages:
            for meta in page:
                version = Version.from_meta(meta)
                key = version.key
                replaced = latest.get(key)
                latest[key] = version
                if replaced is not None:
                    if (versions := history.get(key)) is None:
                        history[key] = [replaced, version]
                    else:
                        versions.append(version)
                    live = bool(replaced.version)
                else:
                    live = False
                if version.id >= bound:
                    index.recent.append(version)
                    if bool(version.version) != live:
                        index.births.append(version)
                elif replaced is not None or not version.version:
                    index.recent.append(version)
        index.keys = SortedList(latest)
        index.dead = SortedList(key for key, version in latest.items() if not version.version)
        return index

    def put(self, version: Version) -> Version | None:
        """Add the newest version of its key; return the one it replaced. Hot: once a change."""
        key = version.key
        latest = self.latest
        replaced = latest.get(key)
        latest[key] = version
        self.recent.append(version)
        if replaced is None:
            self.keys.add(key)
            if version.version:
                self.births.append(version)
            else:
                self.dead.add(key)
            return None
        history = self.history.get(key)
        if history is None:
            self.history[key] = [replaced, version]
        else:
            history.append(version)
        if not replaced.version:
            if version.version:
                self.dead.remove(key)
                self.births.append(version)
        elif not version.version:
            self.dead.add(key)
            self.births.append(version)
        return replaced

    def forget(self, key: bytes) -> None:
        """Remove a key with all its versions."""
        version = self.latest.pop(key)
        self.history.pop(key, None)
        self.keys.remove(key)
        if not version.version:
            self.dead.remove(key)

    def find(self, key: bytes) -> Version | None:
        """Return the live version of a key now."""
        version = self.latest.get(key)
        return version if version is not None and version.version else None

    def find_at(self, key: bytes, revision: int) -> Version | None:
        """Return the live version of a key as of a revision that is not compacted."""
        version = self.newest_at(key, revision)
        return version if version is not None and version.version else None

    def newest_at(self, key: bytes, revision: int) -> Version | None:
        """Return the version of a key as of a revision, also where it is a tombstone."""
        version = self.latest.get(key)
        if version is None:
            return None
        bound = (revision + 1) << SUB_BITS
        if version.id < bound:
            return version
        history = self.history.get(key)
        if history is None:
            return None
        at = bisect_right(history, bound - 1, key=_id)
        return history[at - 1] if at else None

    def scan(self, span: KeyRange, revision: int | None, limit: int) -> list[Version]:
        """Return the live versions of a range in key order, at most `limit` (0: all)."""
        first, last = self._positions(self.keys, span)
        if not limit or limit >= last - first:
            return self._live(self.keys[first:last], revision)
        found: list[Version] = []
        step = limit
        while first < last and len(found) < limit:
            found += self._live(self.keys[first : min(first + step, last)], revision)
            first += step
            step = max(CHUNK, 2 * (limit - len(found)))
        return found[:limit]

    def count(self, span: KeyRange, revision: int | None) -> int:
        """Return how many keys of a range are live; exact at any retained revision."""
        first, last = self._positions(self.keys, span)
        if first == last:
            return 0
        if revision is not None:
            since = bisect_right(self.births, ((revision + 1) << SUB_BITS) - 1, key=_id)
            if len(self.births) - since > last - first:
                return len(self._live(self.keys[first:last], revision))
            added = self._added(self.births[since:], span)
        else:
            added = 0
        dead_first, dead_last = self._positions(self.dead, span)
        return (last - first) - (dead_last - dead_first) - added

    def _live(self, keys: Iterable[bytes], revision: int | None) -> list[Version]:
        latest = self.latest
        if revision is None:
            return [version for key in keys if (version := latest[key]).version]
        bound = (revision + 1) << SUB_BITS
        found: list[Version] = []
        for key in keys:
            newest = latest[key]
            if newest.id < bound:
                if newest.version:
                    found.append(newest)
            elif (then := self.find_at(key, revision)) is not None:
                found.append(then)
        return found

    @staticmethod
    def _positions(keys: SortedList[bytes], span: KeyRange) -> tuple[int, int]:
        first = keys.bisect_left(span.start)
        last = len(keys) if span.stop is None else keys.bisect_left(span.stop)
        return first, max(first, last)

    @staticmethod
    def _added(births: list[Version], span: KeyRange) -> int:
        start, stop = span
        added = 0
        for version in births:
            key = version.key
            if start <= key and (stop is None or key < stop):
                added += 1 if version.version else -1
        return added
