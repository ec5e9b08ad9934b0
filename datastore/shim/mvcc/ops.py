"""Requests to the core and its answers, as values: what etcd's messages mean, without protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from datastore.shim.backends.api import Alarm


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


@dataclass(frozen=True, slots=True)
class Range:
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


@dataclass(frozen=True, slots=True)
class Put:
    """PutRequest."""

    key: bytes
    value: bytes = b""
    lease: int = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


@dataclass(frozen=True, slots=True)
class DeleteRange:
    """DeleteRangeRequest."""

    key: bytes
    end: bytes = b""
    prev_kv: bool = False


@dataclass(frozen=True, slots=True)
class Compare:
    """One guard of a transaction. `value` is bytes for CompareTarget.VALUE, else int."""

    target: CompareTarget
    result: int
    key: bytes
    value: int | bytes
    end: bytes = b""


@dataclass(frozen=True, slots=True)
class Txn:
    """TxnRequest."""

    compares: Sequence[Compare] = ()
    success: Sequence[Op] = ()
    failure: Sequence[Op] = ()


Op = Range | Put | DeleteRange | Txn


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """LeaseGrantRequest, id and TTL (seconds) already settled by the caller."""

    id: int
    ttl: int


@dataclass(frozen=True, slots=True)
class LeaseRevoke:
    """LeaseRevokeRequest; also how an expired lease ends."""

    id: int


@dataclass(frozen=True, slots=True)
class Compact:
    """CompactionRequest, the logical part."""

    revision: int


@dataclass(frozen=True, slots=True)
class SetAlarms:
    """Replace the set of active alarms."""

    alarms: Sequence[Alarm]


Write = Put | DeleteRange | Txn | LeaseGrant | LeaseRevoke | Compact | SetAlarms
"""What goes through the writer."""


# Answers. `kvs` are pre-encoded KeyValue messages, each framed as field 2 (see wire.py), so that
# a reply is a join of bytes.


@dataclass(frozen=True, slots=True)
class RangeResult:
    """Answer to Range; `revision` is the header's (the current one, not the one asked for)."""

    kvs: Sequence[bytes]
    count: int
    more: bool
    revision: int


@dataclass(frozen=True, slots=True)
class PutResult:
    """Answer to Put."""

    revision: int
    prev: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeleteRangeResult:
    """Answer to DeleteRange."""

    revision: int
    deleted: int
    prevs: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class TxnResult:
    """Answer to Txn, one result an operation of the branch taken."""

    revision: int
    succeeded: bool
    results: Sequence[OpResult] = ()


OpResult = RangeResult | PutResult | DeleteRangeResult | TxnResult


@dataclass(frozen=True, slots=True)
class Done:
    """Answer to a write that has nothing to say but the current revision."""

    revision: int


Result = RangeResult | PutResult | DeleteRangeResult | TxnResult | Done
