"""What the writes of one batch change, evaluated in order over the store, before they are durable.

Each accepted write that changes keys takes its own revision, the store's plus one, plus two, and
so on. A write that is refused leaves no trace. Nothing here is seen by readers: the batch is
appended to the log first, and then `Store.apply` takes what `applied` returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import assert_never

from sortedcontainers import SortedList

from datastore.shim.backends.api import MAX_CHANGES, SUB_BITS, Alarm, Kinds, Meta, Row, RowId
from datastore.shim.errors import (
    Compacted,
    FutureRevision,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    LeaseTtlTooLarge,
    RequestTooLarge,
)
from datastore.shim.mvcc.alarms import check_alarms
from datastore.shim.mvcc.auth import SERVER, Auth, Caller
from datastore.shim.mvcc.auth_changes import change
from datastore.shim.mvcc.auth_ops import AuthWrite
from datastore.shim.mvcc.keyrange import KeyRange
from datastore.shim.mvcc.ops import (
    Compact,
    DeleteRange,
    DeleteRangeResult,
    Done,
    LeaseGrant,
    LeaseRevoke,
    OpResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Result,
    SetAlarm,
    Txn,
    TxnResult,
    Write,
)
from datastore.shim.mvcc.permits import check_write
from datastore.shim.mvcc.selection import check_revision, frames, raw_values, render, select
from datastore.shim.mvcc.store import Applied, Store
from datastore.shim.mvcc.txn import Taken, all_hold, take
from datastore.shim.mvcc.version import Version
from datastore.shim.mvcc.wire import frame_key_value

MAX_LEASE_TTL_SECONDS = 9_000_000_000

_key = attrgetter("key")


class Overlay:
    """The uncommitted state of one batch. `values` are those fetched after a MissingValues."""

    def __init__(self, store: Store, values: Mapping[RowId, bytes]) -> None:
        self.revision = store.revision
        self.rows: list[Row] = []
        self.compacted: int | None = None
        self.alarms: tuple[Alarm, ...] | None = None
        self._store = store
        self._auth = store.auth
        self._index = store.index
        self._values = values
        self._versions: list[Version] = []
        self._mark = 0  # how many versions there were when the current write began
        self._latest: dict[bytes, Version] = {}
        self._order: SortedList[bytes] | None = None  # of _latest, once a range needs it
        self._granted: dict[int, int] = {}
        self._dropped: dict[int, None] = {}
        self._leases_put: set[int] = set()  # those that some put of the batch has named

    @property
    def empty(self) -> bool:
        """Whether there is nothing to append."""
        return not self.kinds

    @property
    def kinds(self) -> Kinds:
        """What the batch touches."""
        kinds = Kinds.LOG if self.rows else Kinds.NONE
        if self._granted or self._dropped:
            kinds |= Kinds.LEASE
        if self.compacted is not None:
            kinds |= Kinds.COMPACT
        if self.alarms is not None:
            kinds |= Kinds.ALARM
        if self.auth is not None:
            kinds |= Kinds.AUTH
        return kinds

    @property
    def auth(self) -> Auth | None:
        """The auth state afterwards; None: unchanged."""
        return None if self._auth is self._store.auth else self._auth

    @property
    def granted(self) -> list[tuple[int, int]]:
        """Leases to add, after `dropped` are removed, as (id, ttl)."""
        return list(self._granted.items())

    @property
    def dropped(self) -> list[int]:
        """Leases to remove."""
        return list(self._dropped)

    def applied(self) -> Applied:
        """Return what the batch changes, for `Store.apply` once it is durable."""
        return Applied(
            self.revision,
            self._versions,
            self.granted,
            self.dropped,
            self.compacted,
            self.alarms,
            self.auth,
        )

    def evaluate(self, write: Write, caller: Caller = SERVER) -> Result:
        """Accept a write and return its answer, or leave no trace of it. Hot.

        Raises:
            RequestError: the request is at fault, or not the caller's to make.
            NoSpace, CorruptStore: an alarm is active.
            MissingValues: values are not in memory; to be tried again with them.
        """
        self._mark = len(self._versions)
        try:
            if self._store.alarms or self.alarms:
                check_alarms(self._store.alarms if self.alarms is None else self.alarms, write)
            if self._auth.enabled and caller is not None:
                check_write(self._auth, caller, write, self)
            result = self._evaluate(write)
        except BaseException:
            self._undo()
            raise
        if len(self._versions) > self._mark:
            self.revision += 1
        return result

    # Source: what the operations of a batch see. A revision is above the store's only when a
    # transaction asks for what an earlier write of the same batch has left.

    def find(self, key: bytes) -> Version | None:
        """Return the live version of a key now. Hot."""
        version = self._latest.get(key) or self._index.latest.get(key)
        return version if version is not None and version.version else None

    def find_at(self, key: bytes, revision: int) -> Version | None:
        """Return the live version of a key as of a revision."""
        if revision <= self._store.revision:
            return self._index.find_at(key, revision)
        changed = self._changed(KeyRange.from_wire(key, b""), revision)
        version = changed.get(key) or self._index.latest.get(key)
        return version if version is not None and version.version else None

    def scan(self, span: KeyRange, revision: int | None, limit: int) -> list[Version]:
        """Return live versions of a range in key order, at most `limit` (0: all)."""
        if revision is not None and revision <= self._store.revision:
            return self._index.scan(span, revision, limit)
        changed = self._changed(span, revision)
        if not changed:
            return self._index.scan(span, None, limit)
        # Of `limit` + len(changed) keys at least `limit` are left when the changed ones are
        # taken out, so nothing beyond them can come before the limit.
        committed = self._index.scan(span, None, limit + len(changed) if limit else 0)
        found = [version for version in committed if version.key not in changed]
        found += [version for version in changed.values() if version.version]
        found.sort(key=_key)
        return found[:limit] if limit else found

    def count(self, span: KeyRange, revision: int | None) -> int:
        """Return how many keys of a range are live."""
        if revision is not None and revision <= self._store.revision:
            return self._index.count(span, revision)
        count = self._index.count(span, None)
        for key, version in self._changed(span, revision).items():
            count += bool(version.version) - (self._index.find(key) is not None)
        return count

    def _changed(self, span: KeyRange, revision: int | None) -> dict[bytes, Version]:
        """Return the newest versions of this batch in a range, tombstones too."""
        if not self._versions:
            return {}
        if revision is not None:
            bound = (revision + 1) << SUB_BITS
            return {v.key: v for v in self._versions if v.id < bound and span.contains(v.key)}
        if self._order is None:
            self._order = SortedList(self._latest)
        keys = self._order.irange(span.start, span.stop, inclusive=(True, False))
        return {key: self._latest[key] for key in keys}

    def attached(self, lease: int) -> list[bytes]:
        """Return the keys of a lease (permits.Attachments)."""
        info = self._store.leases.find(lease)
        attached = [] if info is None else [key for key in info.keys if key not in self._latest]
        if lease in self._leases_put:
            attached += [v.key for v in self._latest.values() if v.lease == lease]
        return attached

    # Evaluation.

    def _evaluate(self, write: Write) -> Result:
        if isinstance(write, Txn):
            return self._txn(write)
        if isinstance(write, Put):
            return self._put(write)
        if isinstance(write, DeleteRange):
            return self._delete_range(write)
        if isinstance(write, LeaseGrant):
            self._grant(write)
        elif isinstance(write, LeaseRevoke):
            self._revoke(write.id)
        elif isinstance(write, Compact):
            self._compact(write.revision)
        elif isinstance(write, SetAlarm):
            known = self._store.alarms if self.alarms is None else self.alarms
            if write.active != (write.alarm in known):
                changed = {write.alarm}
                self.alarms = tuple(sorted(changed ^ set(known)))
        elif isinstance(write, AuthWrite):
            self._auth = change(self._auth, write)
        else:
            assert_never(write)
        return Done(self._visible())

    def _txn(self, txn: Txn) -> TxnResult:
        succeeded = all_hold(self, txn.compares, self._values)
        branch = txn.success if succeeded else txn.failure
        if len(branch) == 1:
            # Kubernetes' shapes end here: one operation means the same in and out of a txn.
            (op,) = branch
            if isinstance(op, Put):
                return TxnResult(self.revision + 1, succeeded, (self._put(op),))
            if not isinstance(op, Txn):
                if isinstance(op, Range):
                    check_revision(op.revision, self.revision, self._compacted)
                result = self._range(op) if isinstance(op, Range) else self._delete_range(op)
                return TxnResult(self._visible(), succeeded, (result,))
        taken = take(self, txn, succeeded, self._values)
        self._check(taken)
        results = self._execute(taken)
        return TxnResult(self._visible(), succeeded, results)

    def _check(self, taken: Taken) -> None:
        """Refuse a transaction before any of it has run (etcd: checkTxn)."""
        for op in taken.ops:
            if isinstance(op, Range):
                check_revision(op.revision, self.revision, self._compacted)
            elif isinstance(op, Put):
                if op.lease and not self._has_lease(op.lease):
                    raise LeaseNotFound
                if (op.ignore_value or op.ignore_lease) and self.find(op.key) is None:
                    raise KeyNotFound
            elif isinstance(op, Taken):
                self._check(op)

    def _execute(self, taken: Taken) -> list[OpResult]:
        results: list[OpResult] = []
        for op in taken.ops:
            if isinstance(op, Put):
                results.append(self._put(op))
            elif isinstance(op, DeleteRange):
                results.append(self._delete_range(op))
            elif isinstance(op, Range):
                results.append(self._range(op))
            else:
                # etcd leaves the header of a nested answer empty.
                results.append(TxnResult(0, op.succeeded, self._execute(op)))
        return results

    def _range(self, op: Range) -> RangeResult:
        selection = select(self, op, self._visible(), self._compacted, self._values)
        return render(op, selection, self._store.cache, self._values)

    def _put(self, op: Put) -> PutResult:
        key, value, lease = op.key, op.value, op.lease
        if lease and not self._has_lease(lease):
            raise LeaseNotFound
        previous = self._latest.get(key) or self._index.latest.get(key)
        if previous is not None and not previous.version:
            previous = None
        if op.ignore_value or op.ignore_lease:
            if previous is None:
                # Also when an earlier operation of this transaction has deleted the key, which
                # etcd 3.7 does not survive.
                raise KeyNotFound
            if op.ignore_value:
                value = raw_values((previous,), self._values)[previous.id]
            if op.ignore_lease:
                lease = previous.lease
        prev = None
        if op.prev_kv and previous is not None:
            prev = frames((previous,), self._store.cache, self._values)[0]
        revision = self.revision + 1
        row = self._next_row(revision)
        if previous is None:
            create, number = revision, 1
        else:
            create, number = previous.create_revision, previous.version + 1
        framed = frame_key_value(key, create, revision, number, value, lease)
        if lease:
            self._leases_put.add(lease)
        self._add(Version(row, key, create, number, lease, framed), value)
        return PutResult(revision, prev)

    def _delete_range(self, op: DeleteRange) -> DeleteRangeResult:
        versions: Sequence[Version]
        if op.end:
            versions = self.scan(KeyRange.from_wire(op.key, op.end), None, 0)
        else:
            version = self.find(op.key)
            versions = () if version is None else (version,)
        prevs: Sequence[bytes] = ()
        if op.prev_kv:
            prevs = frames(versions, self._store.cache, self._values)
        for version in versions:
            self._delete(version.key)
        return DeleteRangeResult(self._visible(), len(versions), prevs)

    def _delete(self, key: bytes) -> None:
        self._add(Version(self._next_row(self.revision + 1), key, 0, 0, 0), None)

    def _add(self, version: Version, value: bytes | None) -> None:
        key = version.key
        self._versions.append(version)
        self.rows.append(
            Row(
                Meta(version.id, version.create_revision, version.version, version.lease, key),
                value,
            )
        )
        if self._order is not None and key not in self._latest:
            self._order.add(key)
        self._latest[key] = version

    def _grant(self, write: LeaseGrant) -> None:
        if write.id == 0:
            raise LeaseNotFound
        if write.ttl > MAX_LEASE_TTL_SECONDS:
            raise LeaseTtlTooLarge
        if self._has_lease(write.id):
            raise LeaseExists
        self._granted[write.id] = write.ttl

    def _revoke(self, lease: int) -> None:
        if not self._has_lease(lease):
            raise LeaseNotFound
        for key in sorted(self.attached(lease)):
            self._delete(key)
        if self._granted.pop(lease, None) is None:
            self._dropped[lease] = None

    def _compact(self, revision: int) -> None:
        if revision <= self._compacted:
            raise Compacted(self._compacted)
        if revision > self.revision:
            raise FutureRevision
        self.compacted = revision

    @property
    def _compacted(self) -> int:
        return self._store.compacted if self.compacted is None else self.compacted

    def _has_lease(self, lease: int) -> bool:
        return lease in self._granted or (
            lease in self._store.leases and lease not in self._dropped
        )

    def _visible(self) -> int:
        """Return the revision that the current write has reached."""
        return self.revision + (len(self._versions) > self._mark)

    def _next_row(self, revision: int) -> RowId:
        sub = len(self._versions) - self._mark
        if sub >= MAX_CHANGES:
            raise RequestTooLarge
        return revision << SUB_BITS | sub

    def _undo(self) -> None:
        """Remove what the current write has changed so far."""
        undone = {version.key for version in self._versions[self._mark :]}
        if not undone:
            return
        del self._versions[self._mark :]
        del self.rows[self._mark :]
        self._order = None
        for key in undone:
            del self._latest[key]
        for version in self._versions:
            if version.key in undone:
                self._latest[version.key] = version
