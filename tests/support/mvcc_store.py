"""A store with the rows that a backend would keep for it."""

from __future__ import annotations

from typing import Any

from datastore.etcdpb.rpc_pb2 import RangeResponse
from datastore.shim.backends.api import Head, Lease, Row
from datastore.shim.mvcc.ops import (
    EQUAL,
    Compare,
    CompareTarget,
    DeleteRange,
    Put,
    Range,
    Txn,
    Write,
)
from datastore.shim.mvcc.overlay import Overlay
from datastore.shim.mvcc.store import MissingValues, Store
from datastore.shim.mvcc.version import Change

ALL = (b"\0", b"\0")


class Rows:
    """Commits writes to a store, one batch a call, and fetches the values that it misses."""

    def __init__(self, cache_bytes: int = 1 << 20) -> None:
        self.store = Store(cache_bytes=cache_bytes)
        self.rows: dict[int, Row] = {}
        self.fetched: list[int] = []
        self.changes: list[Change] = []

    def batch(self, *writes: Write) -> tuple[list[Any], Overlay]:
        """Answers and the overlay that gave them; nothing is committed."""

        def attempt(held):
            overlay = Overlay(self.store, held)
            return [overlay.evaluate(write) for write in writes], overlay

        return self.fetching(attempt)

    def write(self, *writes: Write) -> Any:
        """Commit a batch; return the answer to its last write."""
        answers, overlay = self.batch(*writes)
        self.rows |= {row.meta.id: row for row in overlay.rows}
        self.changes = self.store.apply(overlay.applied())
        return answers[-1]

    def read(self, op: Range | Txn) -> Any:
        return self.fetching(lambda held: self.store.read(op, held))

    def fetching(self, call):
        held = {}
        while True:
            try:
                return call(held)
            except MissingValues as missing:
                self.fetched += missing.ids
                held |= {row: self.rows[row].value for row in missing.ids}

    def reload(self, leases: tuple[Lease, ...] = ()) -> Store:
        head = Head(0, self.store.revision, self.store.compacted, -1, 1, 1)
        metas = [self.rows[row].meta for row in sorted(self.rows)]
        pages, store = [metas[:2], metas[2:]], self.store
        return Store.load(head, pages, leases, store.alarms, 1 << 20, auth=store.auth)


def puts(*keys: bytes) -> list[Put]:
    return [Put(key, b"value of " + key) for key in keys]


def mod_is(key: bytes, revision: int) -> Compare:
    return Compare(CompareTarget.MOD, EQUAL, key, revision)


def then(*ops: Put | DeleteRange | Range | Txn) -> Txn:
    return Txn((), ops)


def found(result) -> list[bytes]:
    """The keys of a range's answer."""
    return [kv.key for kv in RangeResponse.FromString(b"".join(result.kvs)).kvs]


def trace(overlay: Overlay) -> tuple[object, ...]:
    """Return all that a write may leave behind."""
    return overlay.applied(), list(overlay.rows), dict(overlay._latest), overlay.kinds
