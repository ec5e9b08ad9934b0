"""Requests to the core and its answers, as values: what etcd's messages mean, without protobuf.

Named tuples, because one of each is made for every call: a frozen dataclass costs three to ten
times as much to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from datastore.shim.backends.api import Alarm
from datastore.shim.mvcc.auth_ops import AuthWrite


class SortOrder(IntEnum):
    """RangeRequest.SortOrder."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(IntEnum):
    """RangeRequest.SortTarget."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class CompareTarget(IntEnum):
    """Compare.CompareTarget."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


EQUAL, GREATER, LESS, NOT_EQUAL = range(4)
"""Compare.CompareResult. Kept as int: an unknown one is legal and true (contract 2.5)."""


class Range(NamedTuple):
    """RangeRequest. `end` as on the wire: empty = one key, NUL = from key on (contract 2.2)."""

    key: bytes
    end: bytes = b""
    limit: int = 0
    revision: int = 0
    sort_order: SortOrder = SortOrder.NONE
    sort_target: SortTarget = SortTarget.KEY
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    min_mod: int = 0
    max_mod: int = 0
    min_create: int = 0
    max_create: int = 0


class Put(NamedTuple):
    """PutRequest."""

    key: bytes
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class DeleteRange(NamedTuple):
    """DeleteRangeRequest."""

    key: bytes
    end: bytes = b""
    prev_kv: bool = False


class Compare(NamedTuple):
    """One guard of a transaction. `value` is bytes for CompareTarget.VALUE, else int."""

    target: CompareTarget
    result: int
    key: bytes
    value: int | bytes
    end: bytes = b""


class Txn(NamedTuple):
    """TxnRequest."""

    compares: Sequence[Compare] = ()
    success: Sequence[Op] = ()
    failure: Sequence[Op] = ()


Op = Range | Put | DeleteRange | Txn


class LeaseGrant(NamedTuple):
    """LeaseGrantRequest, id and TTL (seconds) already settled by the caller."""

    id: int
    ttl: int


class LeaseRevoke(NamedTuple):
    """LeaseRevokeRequest; also how an expired lease ends."""

    id: int


class Compact(NamedTuple):
    """CompactionRequest, the logical part."""

    revision: int


class SetAlarm(NamedTuple):
    """Raise or disarm one alarm; one that is as it should be is no change."""

    alarm: Alarm
    active: bool


Write = Put | DeleteRange | Txn | LeaseGrant | LeaseRevoke | Compact | SetAlarm | AuthWrite
"""What goes through the writer."""


# Answers. `kvs` are pre-encoded KeyValue messages, each framed as field 2 (see wire.py), so that
# a reply is a join of bytes.


class RangeResult(NamedTuple):
    """Answer to Range; `revision` is the header's (the current one, not the one asked for)."""

    kvs: Sequence[bytes]
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    more: bool
    revision: int


class PutResult(NamedTuple):
    """Answer to Put."""

    revision: int
    prev: bytes | None = None


class DeleteRangeResult(NamedTuple):
    """Answer to DeleteRange."""

    revision: int
    deleted: int
    prevs: Sequence[bytes] = ()


class TxnResult(NamedTuple):
    """Answer to Txn, one result an operation of the branch taken."""

    revision: int
    succeeded: bool
    results: Sequence[OpResult] = ()


OpResult = RangeResult | PutResult | DeleteRangeResult | TxnResult


class Done(NamedTuple):
    """Answer to a write that has nothing to say but the current revision."""

    revision: int


Result = RangeResult | PutResult | DeleteRangeResult | TxnResult | Done
