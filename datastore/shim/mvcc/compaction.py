"""Which versions a compaction lets go of (etcd: key_index.go, compact).

Of each key the newest version at or below the compacted revision stays, and everything above it.
A tombstone in that place goes too, unless it is exactly at the compacted revision: etcd keeps
that one since 3.5.15, and hashes of members would differ otherwise.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter

from datastore.shim.backends.api import SUB_BITS, Meta
from datastore.shim.mvcc.index import Index
from datastore.shim.mvcc.keyrange import KeyRange
from datastore.shim.mvcc.version import Version

_id = attrgetter("id")


class Compaction:
    """One compaction under way, in steps, so that nobody waits long for it.

    It costs as much as has changed since the last compaction up to this one, not as much as there
    are keys. Reads and writes may come between the steps: nobody can read below the revision any
    more, and what is not yet removed from the index is only there in vain.
    """

    def __init__(self, index: Index, revision: int) -> None:
        self.revision = revision
        self.done = False
        self._index = index
        self._graves: list[Version] = []

    def step(self, limit: int) -> list[Version]:
        """Look at up to `limit` changes; remove what nobody can read any more and return it."""
        index, bound = self._index, ((self.revision + 1) << SUB_BITS) - 1
        reached = bisect_right(index.recent, bound, key=_id)
        touched = index.recent[: min(reached, limit)]
        del index.recent[: len(touched)]
        latest, history = index.latest, index.history
        garbage: list[Version] = []
        for key in {version.key for version in touched}:
            # Most keys that changed were made and not touched again, and an earlier step may
            # have removed a key: nothing to let go of.
            if key in history or (key in latest and not latest[key].version):
                _compact_key(index, key, self.revision, garbage)
        # A tombstone that stays for being exactly here goes with the next compaction.
        floor = self.revision << SUB_BITS
        self._graves += [v for v in touched if not v.version and v.id >= floor]
        if len(touched) == reached:
            index.recent[:0] = self._graves
            del index.births[: bisect_right(index.births, bound, key=_id)]
            self.done = True
        garbage.sort(key=_id)
        return garbage


def _compact_key(index: Index, key: bytes, revision: int, garbage: list[Version]) -> None:
    latest = index.latest[key]
    history = index.history.get(key) or [latest]
    # An earlier step may have removed all up to the revision.
    kept = max(bisect_right(history, ((revision + 1) << SUB_BITS) - 1, key=_id) - 1, 0)
    oldest = history[kept]
    if not oldest.version and oldest.mod_revision < revision:
        kept += 1
    garbage += history[:kept]
    if kept == len(history):
        index.forget(key)
    elif kept == len(history) - 1:
        index.history.pop(key, None)
    else:
        del history[:kept]


def is_retained(index: Index, meta: Meta, compacted: int) -> bool:
    """Return whether a stored row outlives a compaction, whether or not garbage is pruned yet.

    The index must know all versions as of `compacted`: no later compaction has been in it.
    """
    revision = meta.id >> SUB_BITS
    if revision > compacted:
        return True
    newest = index.newest_at(meta.key, compacted)
    if newest is None or newest.id != meta.id:
        return False
    return bool(newest.version) or revision == compacted


def count_retained(index: Index, compacted: int) -> int:
    """Return how many rows outlive a compaction, but for tombstones exactly there. As above."""
    recent, bound = index.recent, (compacted + 1) << SUB_BITS
    since = len(recent) - bisect_left(recent, bound, key=_id)
    return since + (index.count(KeyRange(b"", None), compacted) if compacted > 0 else 0)
