"""Which versions a compaction lets go of (etcd: key_index.go, compact).

Of each key the newest version at or below the compacted revision stays, and everything above it.
A tombstone in that place goes too, unless it is exactly at the compacted revision: etcd keeps
that one since 3.5.15, and hashes of members would differ otherwise.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter

from datastore.shim.backends.api import SUB_BITS
from datastore.shim.mvcc.index import Index
from datastore.shim.mvcc.version import Version

_id = attrgetter("id")


def compact(index: Index, revision: int) -> list[Version]:
    """Remove what nobody can read any more once `revision` is compacted, and return it.

    Costs as much as has changed since the last compaction up to this one, not as much as there
    are keys.
    """
    bound = ((revision + 1) << SUB_BITS) - 1
    reached = bisect_right(index.recent, bound, key=_id)
    touched = index.recent[:reached]
    del index.births[: bisect_right(index.births, bound, key=_id)]
    garbage: list[Version] = []
    latest, history = index.latest, index.history
    for key in {version.key for version in touched}:
        # Most keys that changed were made and not touched again: nothing to let go of.
        if key in history or not latest[key].version:
            _compact_key(index, key, revision, garbage)
    # A tombstone that stays for being exactly here goes with the next compaction.
    floor = revision << SUB_BITS
    graves = [v for v in touched if not v.version and v.id >= floor]
    index.recent[:reached] = graves
    garbage.sort(key=_id)
    return garbage


def _compact_key(index: Index, key: bytes, revision: int, garbage: list[Version]) -> None:
    latest = index.latest[key]
    history = index.history.get(key) or [latest]
    kept = bisect_right(history, ((revision + 1) << SUB_BITS) - 1, key=_id) - 1
    if kept < 0:
        return
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
