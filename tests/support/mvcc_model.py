"""etcd's data model written down as plainly as possible: one dictionary for each revision.

Slow, forgets nothing, and independent of the store: protobuf encodes, no index, no overlay.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from operator import eq, ge, gt, le, lt, ne
from typing import NamedTuple

from datastore.etcdpb.kv_pb2 import KeyValue
from datastore.shim import errors
from datastore.shim.backends.api import Alarm
from datastore.shim.mvcc import ops
from datastore.shim.mvcc.ops import SortOrder, SortTarget


class Path(NamedTuple):
    """A transaction whose compares are decided, those nested in it too."""

    held: bool
    ops: list[object]


class KV(NamedTuple):
    key: bytes
    create: int
    mod: int
    version: int
    lease: int
    value: bytes

    def framed(self, *, value: bool = True, lease: bool = True) -> bytes:
        kv = KeyValue(key=self.key, create_revision=self.create, mod_revision=self.mod)
        kv.version, kv.lease = self.version, self.lease if lease else 0
        kv.value = self.value if value else b""
        body = kv.SerializeToString()
        assert len(body) < 128
        return b"\x12" + bytes((len(body),)) + body


@dataclass
class Model:
    revision: int = 1
    compacted: int = -1
    states: dict[int, dict[bytes, KV]] = field(default_factory=lambda: {1: {}})
    leases: dict[int, int] = field(default_factory=dict)
    alarms: list[Alarm] = field(default_factory=list)

    def write(self, write):
        """Answer a write, or raise with nothing changed."""
        kinds = {alarm.kind for alarm in self.alarms}
        if 2 in kinds and not isinstance(write, ops.SetAlarm):
            raise errors.CorruptStore
        if 1 in kinds and (isinstance(write, ops.LeaseGrant) or puts(write)):
            raise errors.NoSpace
        saved = deepcopy(self.leases)
        work, self.changes = dict(self.states[self.revision]), 0
        try:
            result = self.evaluate(write, work)
        except errors.ShimError:
            self.leases = saved
            raise
        if self.changes:
            self.revision += 1
            self.states[self.revision] = work
        return result

    def evaluate(self, write, work):
        if isinstance(write, ops.Txn):
            path = self.path(write, work)
            self.check(path)
            results = self.execute(path, work)
            return ops.TxnResult(self.visible(), path.held, results)
        if isinstance(write, ops.LeaseGrant):
            if write.id in self.leases:
                raise errors.LeaseExists
            self.leases[write.id] = write.ttl
        elif isinstance(write, ops.LeaseRevoke):
            if self.leases.pop(write.id, None) is None:
                raise errors.LeaseNotFound
            for kv in [kv for kv in work.values() if kv.lease == write.id]:
                self.delete(kv.key, work)
        elif isinstance(write, ops.Compact):
            self.readable(write.revision + (write.revision == self.compacted and -1))
            self.compacted = write.revision
        elif isinstance(write, ops.SetAlarm):
            others = [alarm for alarm in self.alarms if alarm != write.alarm]
            self.alarms = [*others, write.alarm] if write.active else others
        else:
            return self.operate(write, work)
        return ops.Done(self.visible())

    def visible(self):
        return self.revision + bool(self.changes)

    def readable(self, revision):
        if revision > self.revision:
            raise errors.FutureRevision
        if revision < self.compacted:
            raise errors.Compacted

    def path(self, txn, work):
        held = all(self.holds(compare, work) for compare in txn.compares)
        branch = txn.success if held else txn.failure
        return Path(
            held, [self.path(op, work) if isinstance(op, ops.Txn) else op for op in branch]
        )

    def holds(self, compare, work):
        name = ("version", "create", "mod", "value", "lease")[compare.target]
        found = matching(compare, work)
        if not found and name == "value":
            return False
        test = {0: eq, 1: gt, 2: lt, 3: ne}.get(compare.result, lambda a, b: True)
        return all(
            test(getattr(kv, name), compare.value) for kv in found or [KV(b"", 0, 0, 0, 0, b"")]
        )

    def check(self, path):
        state = self.states[self.revision]
        for op in path.ops:
            if isinstance(op, ops.Range) and op.revision:
                self.readable(op.revision)
            if isinstance(op, ops.Put):
                self.puttable(op, state)
            if isinstance(op, Path):
                self.check(op)

    def puttable(self, op, work):
        if op.lease and op.lease not in self.leases:
            raise errors.LeaseNotFound
        if (op.ignore_value or op.ignore_lease) and op.key not in work:
            raise errors.KeyNotFound

    def execute(self, path, work):
        return [
            ops.TxnResult(0, op.held, self.execute(op, work))
            if isinstance(op, Path)
            else self.operate(op, work)
            for op in path.ops
        ]

    def operate(self, op, work):
        if isinstance(op, ops.Range):
            return self.range(op, work)
        if isinstance(op, ops.Put):
            self.puttable(op, work)
            old, new = work.get(op.key), self.revision + 1
            value = old.value if op.ignore_value else op.value
            lease = old.lease if op.ignore_lease else op.lease
            create, version = (old.create, old.version + 1) if old else (new, 1)
            work[op.key] = KV(op.key, create, new, version, lease, value)
            self.changes += 1
            return ops.PutResult(new, old.framed() if old and op.prev_kv else None)
        found = matching(op, work)
        for kv in found:
            self.delete(kv.key, work)
        prevs = [kv.framed() for kv in found] if op.prev_kv else []
        return ops.DeleteRangeResult(self.visible(), len(found), prevs)

    def delete(self, key, work):
        del work[key]
        self.changes += 1

    def read(self, op):
        self.changes, work = 0, self.states[self.revision]
        return self.range(op, work) if isinstance(op, ops.Range) else self.evaluate(op, work)

    def range(self, op, work):
        if op.revision > 0 and op.revision != self.visible():
            self.readable(op.revision)
            work = self.states[op.revision]
        kvs = matching(op, work)
        count, more = len(kvs), False
        target = ("key", "version", "create", "mod", "value")[op.sort_target]
        filters = [(op.min_mod, "mod", ge), (op.max_mod, "mod", le)]
        filters += [(op.min_create, "create", ge), (op.max_create, "create", le)]
        filtered = any(bound for bound, _, _ in filters)
        if op.limit > 0 and not filtered and op.sort_order == SortOrder.NONE:
            more, kvs = len(kvs) > op.limit, kvs[: op.limit + 1]
        for bound, name, test in filters:
            kvs = [kv for kv in kvs if not bound or test(getattr(kv, name), bound)]
        kvs.sort(key=lambda kv: getattr(kv, target), reverse=op.sort_order == SortOrder.DESCEND)
        if op.count_only:
            more, kvs = False, []
        elif 0 < op.limit < len(kvs):
            more, kvs = True, kvs[: op.limit]
        lease = not op.keys_only or op.sort_target == SortTarget.VALUE
        framed = [kv.framed(value=not op.keys_only, lease=lease) for kv in kvs]
        return ops.RangeResult(framed, count, more, self.visible())


def matching(op, work):
    """The live keys that an operation means, in order."""
    if not op.end:
        return [work[op.key]] if op.key in work else []
    end = b"\xff" * 9 if op.end == b"\0" else op.end
    return [kv for key, kv in sorted(work.items()) if op.key <= key < end]


def puts(write):
    if isinstance(write, ops.Txn):
        return any(puts(op) for branch in (write.success, write.failure) for op in branch)
    return isinstance(write, ops.Put)
