"""The committed state of one server: index, leases, alarms, users and roles, cached values.

Names are etcd's. A *revision* counts the writes that changed something; all changes of one write
share it and are told apart by their *sub* number, so that a change's row id is
``revision << 20 | sub``. A *version* of a key is what one change left: a put or a *tombstone*.
A key's life from its first put to its tombstone is a generation: `create_revision` and the
counter `version` start again with each.

    write                           revision   key  create  mod  version
    put a                               2       a      2     2      1
    put b, lease 7                      3       b      3     3      1
    put a                               4       a      2     4      2
    txn: put c, delete a                5       c      5     5      1    row 5<<20 | 0
                                                a      0     5      0    row 5<<20 | 1, tombstone
    revoke lease 7                      6       b      0     6      0    tombstone
    put a                               7       a      7     7      1    a new generation
    compact 5                           7       lets go of a@2 and a@4; a@5 is exactly at the
                                                compacted revision and stays till the next one

A read now sees a@7 and c@5; a read at revision 4 saw a@4 and b@3 until the compaction, and is
refused since, while revision 5 itself stays readable: b@3 and c@5.

Who does what:

    Overlay (overlay.py)   evaluates the writes of a batch, in order, over the store, and tells
                           the rows to append. The store does not know of it.
    Store.apply            moves the store by what a commit changed, the server's own and those
                           of others alike. Nothing else changes what reads see.
    Store.select, render   answer ranges in two steps, because values may not be in memory.
    Index (index.py)       versions by key and by revision.
    Compaction             finds the garbage of a compaction, in steps. The rows go later, when
    (compaction.py)        nobody reads them any more: `collect` hands them out.
    Lessor, ValueCache     leases; pre-encoded KeyValues bounded in bytes.
    Auth (auth.py)         users, roles and what they may do, as one immutable value. A write is
                           checked when it is evaluated (permits.py), so at the state it changes.

Values. The index keeps no values. A version's KeyValue is encoded once, when it is written or
first read, and its bytes are shared by every answer and event until the cache lets them go. An
operation that needs values that are not in memory raises MissingValues with their row ids; the
caller fetches them, adds them to those that it has and asks again. What is handed in is used,
whatever the cache has done meanwhile, so the second attempt succeeds unless the store has moved.

Everything here is synchronous: a method sees one state from its first line to its last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from datastore.shim.backends.api import SUB_BITS, Alarm, Head, Lease, Meta, RowId
from datastore.shim.mvcc.auth import Auth
from datastore.shim.mvcc.cache import ValueCache
from datastore.shim.mvcc.compaction import Compaction
from datastore.shim.mvcc.index import Index
from datastore.shim.mvcc.leases import Lessor
from datastore.shim.mvcc.ops import Op, Range, RangeResult, Txn, TxnResult
from datastore.shim.mvcc.selection import (
    MissingValues,
    Selection,
    check_revision,
    render,
    select,
)
from datastore.shim.mvcc.txn import resolve
from datastore.shim.mvcc.version import Change, Version

__all__ = ["Applied", "MissingValues", "Selection", "Store"]

_NO_VALUES: Mapping[RowId, bytes] = MappingProxyType({})


class Applied(NamedTuple):
    """What one commit changed. Leases are dropped first, then granted; `compacted` comes last."""

    revision: int  # afterwards
    versions: Sequence[Version]  # ascending; may span revisions
    granted: Sequence[tuple[int, int]] = ()  # (lease id, ttl)
    dropped: Sequence[int] = ()
    compacted: int | None = None  # None: unchanged
    alarms: Sequence[Alarm] | None = None  # None: unchanged
    auth: Auth | None = None  # None: unchanged


class Store:
    """Everything that reads see. `revision` and `compacted` are etcd's."""

    def __init__(self, revision: int = 1, compacted: int = -1, cache_bytes: int = 0) -> None:
        self.revision = revision
        self.compacted = compacted
        self.alarms: tuple[Alarm, ...] = ()
        self.auth = Auth()
        self.index = Index()
        self.leases = Lessor()
        self.cache = ValueCache(cache_bytes)
        self._compactions: deque[Compaction] = deque()
        self._garbage: deque[tuple[int, list[RowId]]] = deque()

    @classmethod
    def load(
        cls,
        head: Head,
        pages: Iterable[Sequence[Meta]],
        leases: Sequence[Lease],
        alarms: Sequence[Alarm],
        cache_bytes: int,
        *,
        auth: Auth,
    ) -> Store:
        """Return the store that a log holds, given the meta of all its rows in order.

        Rows that an interrupted pruning has left below the compacted revision become garbage.
        """
        store = cls(head.revision, head.compacted, cache_bytes)
        store.alarms = tuple(sorted(alarms))
        store.auth = auth
        store.leases = Lessor(leases)
        store.index = Index.load(pages, head.compacted)
        store._compactions.append(Compaction(store.index, head.compacted))
        store.tidy(len(store.index.recent))
        for version in store.index.latest.values():
            if version.lease:
                store.leases.attach(version.lease, version.key)
        return store

    @property
    def key_count(self) -> int:
        """How many keys are live."""
        return len(self.index.keys) - len(self.index.dead)

    @property
    def garbage(self) -> int:
        """How many rows are known to wait to be collected."""
        return sum(len(rows) for _, rows in self._garbage)

    def select(self, op: Range, values: Mapping[RowId, bytes] = _NO_VALUES) -> Selection:
        """Return what a range request selects.

        Raises:
            Compacted, FutureRevision: `op.revision` cannot be read.
            MissingValues: it sorts by value, and values are not in memory.
        """
        return select(self.index, op, self.revision, self.compacted, values)

    def render(
        self, op: Range, selection: Selection, values: Mapping[RowId, bytes] = _NO_VALUES
    ) -> RangeResult:
        """Return the answer to a range request; what had to be encoded is cached.

        Raises:
            MissingValues: some are neither cached nor in `values`.
        """
        return render(op, selection, self.cache, values)

    def read(
        self, op: Range | Txn, values: Mapping[RowId, bytes] = _NO_VALUES
    ) -> RangeResult | TxnResult:
        """Answer a range, or a transaction of ranges only, from the committed state.

        Raises:
            Compacted, FutureRevision: a revision asked for cannot be read.
            MissingValues: values are not in memory.
        """
        if isinstance(op, Range):
            return render(op, self.select(op, values), self.cache, values)
        succeeded, ops = resolve(self.index, op, values)
        for inner in ops:
            check_revision(_range(inner).revision, self.revision, self.compacted)
        results = [self.read(_range(inner), values) for inner in ops]
        return TxnResult(self.revision, succeeded, results)

    def apply(self, applied: Applied) -> list[Change]:
        """Move to the state after a commit, and return its changes. Hot.

        The one place that moves what reads see.
        """
        leases = self.leases
        for lease in applied.dropped:
            leases.drop(lease)
        for lease, ttl in applied.granted:
            leases.grant(lease, ttl)
        changes = [self._put(version) for version in applied.versions]
        self.revision = applied.revision
        if applied.alarms is not None:
            self.alarms = tuple(sorted(applied.alarms))
        if applied.auth is not None:
            self.auth = applied.auth
        if applied.compacted is not None:
            self.compacted = applied.compacted
            self._compactions.append(Compaction(self.index, applied.compacted))
        return changes

    def at(self, key: bytes, revision: int) -> Version | None:
        """Return the live version of a key as of a revision; None too where it is compacted."""
        return None if revision < self.compacted else self.index.find_at(key, revision)

    def previous(self, version: Version) -> Version | None:
        """Return what was live just before the revision of `version`: etcd's prev_kv.

        None where nothing was, or where that is compacted, or for a put that creates: also of a
        key that its transaction has deleted before.
        """
        if version.version == 1:
            return None
        return self.at(version.key, version.mod_revision - 1)

    def tidy(self, changes: int = 2000) -> bool:
        """Find garbage of compactions, looking at so many changes; return whether more is left.

        Called again and again with pauses, it spares everybody a long one in `collect`.
        """
        if self._compactions:
            compaction = self._compactions[0]
            garbage = compaction.step(changes)
            for version in garbage:
                self.cache.drop(version)
            if garbage:
                self._garbage.append((compaction.revision, [version.id for version in garbage]))
            if compaction.done:
                self._compactions.popleft()
        return bool(self._compactions)

    def collect(self, horizon: int) -> list[RowId]:
        """Take the garbage of the compactions at revisions up to `horizon`, each row once.

        These rows may be deleted: no read of the store needs them.
        """
        while self._compactions and self._compactions[0].revision <= horizon:
            self.tidy(len(self.index.recent))
        rows: list[RowId] = []
        while self._garbage and self._garbage[0][0] <= horizon:
            rows += self._garbage.popleft()[1]
        return rows

    def _put(self, version: Version) -> Change:
        replaced = self.index.put(version)
        self.cache.adopt(version)
        lease = version.lease
        if replaced is None:
            if lease:
                self.leases.attach(lease, version.key)
            return Change(version, None)
        if replaced.lease != lease:
            self.leases.detach(replaced.lease, version.key)
            if lease:
                self.leases.attach(lease, version.key)
        if replaced.id >> SUB_BITS == version.id >> SUB_BITS:
            return Change(version, self.previous(version))
        return Change(version, replaced if replaced.version else None)


def _range(op: Op | tuple[object, ...]) -> Range:
    if not isinstance(op, Range):
        raise TypeError(f"not a read: {op!r}")
    return op
