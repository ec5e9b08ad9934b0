"""What is wrong with a request whatever the store holds (contract 2.4, 2.5 steps 1 and 2)."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence

from datastore.shim.errors import (
    DuplicateKey,
    KeyNotProvided,
    LeaseProvided,
    TooManyOps,
    ValueProvided,
)
from datastore.shim.mvcc.ops import DeleteRange, Op, Put, Range, Txn

DEFAULT_MAX_TXN_OPS = 128


def check(op: Op, max_txn_ops: int = DEFAULT_MAX_TXN_OPS) -> None:
    """Refuse a request that no store could serve.

    Raises:
        KeyNotProvided, ValueProvided, LeaseProvided: an operation is at fault.
        TooManyOps: a transaction has too many, or nests too many.
        DuplicateKey: a transaction would change a key twice, in whichever branch.
    """
    if isinstance(op, Txn):
        _check_txn(op, max_txn_ops)
        check_overlaps(op)
    else:
        check_single(op)


def check_overlaps(txn: Txn) -> None:
    """Refuse a transaction that would change a key twice. Raises DuplicateKey."""
    _check_overlaps(txn.success)
    _check_overlaps(txn.failure)


def check_size(compares: int, success: int, failure: int, max_txn_ops: int) -> int:
    """Return how many operations transactions nested in one with so many may have.

    Raises:
        TooManyOps: one of these numbers is above the limit.
    """
    ops = max(compares, success, failure)
    if ops > max_txn_ops:
        raise TooManyOps
    return max_txn_ops - ops


def check_single(op: Range | Put | DeleteRange) -> None:
    """Refuse an operation that is at fault by itself. Raises as `check`."""
    if not op.key:
        raise KeyNotProvided
    if isinstance(op, Put):
        if op.ignore_value and op.value:
            raise ValueProvided
        if op.ignore_lease and op.lease:
            raise LeaseProvided


def _check_txn(txn: Txn, max_txn_ops: int) -> None:
    left = check_size(len(txn.compares), len(txn.success), len(txn.failure), max_txn_ops)
    for compare in txn.compares:
        if not compare.key:
            raise KeyNotProvided
    for branch in (txn.success, txn.failure):
        for op in branch:
            if isinstance(op, Txn):
                _check_txn(op, left)
            else:
                check_single(op)


class _Spans:
    """The deletes of a branch, as etcd's interval tree sees them.

    That is `(key, range_end)` as on the wire: a range_end of NUL, "from key on", is a bound like
    any other to it, so such a delete overlaps nothing (etcd: checkIntervals).
    """

    def __init__(self) -> None:
        self.points: set[bytes] = set()
        self.ranges: list[tuple[bytes, bytes]] = []

    def add(self, op: DeleteRange) -> None:
        if not op.end:
            self.points.add(op.key)
        elif op.key < op.end:
            insort(self.ranges, (op.key, op.end))

    def update(self, other: _Spans) -> None:
        self.points |= other.points
        self.ranges = sorted(self.ranges + other.ranges)

    def touch(self, key: bytes) -> bool:
        if key in self.points:
            return True
        below = bisect_right(self.ranges, key, key=lambda span: span[0])
        return any(end > key for _, end in self.ranges[:below])


def _check_overlaps(branch: Sequence[Op]) -> tuple[set[bytes], _Spans]:
    """Refuse a branch that puts a key twice or also deletes it; return its puts and deletes.

    The order is etcd's, and shows: a delete nested in a later transaction than the one with the
    put is not seen as an overlap.
    """
    deletes = _Spans()
    puts: set[bytes] = set()
    for op in branch:
        if isinstance(op, DeleteRange):
            deletes.add(op)
    for op in branch:
        if isinstance(op, Txn):
            then_puts, then_deletes = _check_overlaps(op.success)
            else_puts, else_deletes = _check_overlaps(op.failure)
            # Only one of the two branches runs, so they may put the same key.
            for key in then_puts | else_puts:
                if key in puts or deletes.touch(key):
                    raise DuplicateKey
            puts |= then_puts | else_puts
            deletes.update(then_deletes)
            deletes.update(else_deletes)
    for op in branch:
        if isinstance(op, Put):
            if op.key in puts or deletes.touch(op.key):
                raise DuplicateKey
            puts.add(op.key)
    return puts, deletes
