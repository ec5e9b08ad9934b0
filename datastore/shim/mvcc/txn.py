"""Transactions (contract 2.5): their compares, and the path they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, assert_never

from datastore.shim.backends.api import SUB_BITS, RowId
from datastore.shim.mvcc.keyrange import KeyRange
from datastore.shim.mvcc.ops import (
    EQUAL,
    GREATER,
    LESS,
    NOT_EQUAL,
    Compare,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    Put,
    Range,
    Txn,
    Write,
)
from datastore.shim.mvcc.selection import Source, raw_values
from datastore.shim.mvcc.version import Version

_COMPACTION_MARK: Final = b"compact_rev_key"
"""What kube-apiserver puts before each of its compactions (apiserver's etcd3/compact.go)."""


class Taken(NamedTuple):
    """A transaction whose compares are decided: the branch taken, nested ones decided too."""

    succeeded: bool
    ops: Sequence[Range | Put | DeleteRange | Taken]


def is_read_only(txn: Txn) -> bool:
    """Whether a transaction is a read: ranges only. A nested one never is (etcd)."""
    return all(isinstance(op, Range) for branch in (txn.success, txn.failure) for op in branch)


def is_serializable(txn: Txn) -> bool:
    """Whether a transaction may be answered without asking for the latest position."""
    return all(
        isinstance(op, Range) and op.serializable
        for branch in (txn.success, txn.failure)
        for op in branch
    )


def has_put(txn: Txn) -> bool:
    """Whether a transaction puts in either branch, or one nested in it does."""
    return any(
        isinstance(op, Put) or (isinstance(op, Txn) and has_put(op))
        for branch in (txn.success, txn.failure)
        for op in branch
    )


def needs_space(write: Write) -> bool:
    """Whether a write may add to the store, so that a full disk refuses it.

    The mark of a compaction does not count: it is the way to more space.
    """
    if isinstance(write, Txn):
        return any(
            not isinstance(op, Range) and needs_space(op)
            for branch in (write.success, write.failure)
            for op in branch
        )
    if isinstance(write, Put):
        return write.key != _COMPACTION_MARK
    return isinstance(write, LeaseGrant)


def resolve(source: Source, txn: Txn, values: Mapping[RowId, bytes]) -> Taken:
    """Decide all compares on the path taken, before any operation has run."""
    return take(source, txn, all_hold(source, txn.compares, values), values)


def take(source: Source, txn: Txn, succeeded: bool, values: Mapping[RowId, bytes]) -> Taken:
    """Return the branch of a decided transaction, with those nested in it decided too."""
    branch = txn.success if succeeded else txn.failure
    return Taken(
        succeeded, [resolve(source, op, values) if isinstance(op, Txn) else op for op in branch]
    )


def all_hold(source: Source, compares: Sequence[Compare], values: Mapping[RowId, bytes]) -> bool:
    """Whether every compare is true. Hot."""
    for compare in compares:  # noqa: SIM110 - a generator costs as much as the compare
        if not holds(source, compare, values):
            return False
    return True


def holds(source: Source, compare: Compare, values: Mapping[RowId, bytes]) -> bool:
    """Whether a compare is true of its key, or of all live keys in its range. Hot."""
    target, wanted = compare.target, compare.value
    if not compare.end:
        version = source.find(compare.key)
        if target is CompareTarget.MOD:
            return _compare(
                0 if version is None else version.id >> SUB_BITS, compare.result, wanted
            )
        versions = [] if version is None else [version]
    else:
        versions = source.scan(KeyRange.from_wire(compare.key, compare.end), None, 0)
    if target is CompareTarget.VALUE:
        # Nothing tells a missing value from an empty one on the wire, so etcd says no.
        held = raw_values(versions, values)
        return bool(versions) and all(
            _compare(held[version.id], compare.result, wanted) for version in versions
        )
    if not versions:
        return _compare(0, compare.result, wanted)
    return all(_compare(_field(v, target), compare.result, wanted) for v in versions)


def _field(version: Version, target: CompareTarget) -> int:
    match target:
        case CompareTarget.VERSION:
            return version.version
        case CompareTarget.CREATE:
            return version.create_revision
        case CompareTarget.LEASE:
            return version.lease
        case CompareTarget.MOD | CompareTarget.VALUE:
            return version.mod_revision
    assert_never(target)


def _compare(actual: int | bytes, result: int, wanted: int | bytes) -> bool:
    if result == EQUAL:
        return actual == wanted
    if result == NOT_EQUAL:
        return actual != wanted
    if result == GREATER:
        return actual > wanted  # type: ignore[operator]  # both int, or both bytes
    if result == LESS:
        return actual < wanted  # type: ignore[operator]
    return True
