"""Between protobuf bytes and the values of `mvcc.ops`.

Requests are parsed by protobuf (upb); answers are joins of bytes, most of them encoded already;
large ranges are left in pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, assert_never

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.errors import InvalidSortOption, KeyNotFound, KeyNotProvided
from datastore.shim.mvcc import ops
from datastore.shim.mvcc.check import DEFAULT_MAX_TXN_OPS, check_single, check_size
from datastore.shim.mvcc.wire import AS_FIELD_3, frame, varint
from datastore.shim.rpc.header import EMPTY, nested
from datastore.shim.transport.api import PIECE_BYTES, Body, Pieces

JOINED_BYTES: Final = 1 << 20
"""About how large an answer is joined; a larger one leaves in pieces."""
_JOINED_KEYS: Final = 1000
_SAMPLE_STEP: Final = 16
"""A sample tells how large an answer of few keys is: to look at all would cost a page too much."""

_ORDERS: Final = {int(order): order for order in ops.SortOrder}
_TARGETS: Final = {int(target): target for target in ops.SortTarget}
_COMPARES: Final = {int(target): target for target in ops.CompareTarget}


def to_range(request: pb.RangeRequest) -> ops.Range:
    """Return the operation. Hot.

    Raises:
        InvalidSortOption: the sort order or target is none that etcd knows.
    """
    order, target = request.sort_order, request.sort_target
    if order not in _ORDERS or target not in _TARGETS:
        raise InvalidSortOption if request.key else KeyNotProvided
    return ops.Range(
        request.key,
        request.range_end,
        request.limit,
        request.revision,
        _ORDERS[order],
        _TARGETS[target],
        request.serializable,
        request.keys_only,
        request.count_only,
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    )


def to_put(request: pb.PutRequest) -> ops.Put:
    """Return the operation. Hot."""
    return ops.Put(
        request.key,
        request.value,
        request.lease,
        request.prev_kv,
        request.ignore_value,
        request.ignore_lease,
    )


def to_delete_range(request: pb.DeleteRangeRequest) -> ops.DeleteRange:
    """Return the operation."""
    return ops.DeleteRange(request.key, request.range_end, request.prev_kv)


def to_txn(request: pb.TxnRequest, max_ops: int = DEFAULT_MAX_TXN_OPS) -> ops.Txn:
    """Return the operation; what is left to check of it are overlaps.

    Of several faults the first is told that etcd would find (checkTxnRequest), so each part is
    checked as it is converted.

    Raises:
        KeyNotFound: an operation with nothing in it.
        InvalidSortOption, KeyNotProvided, ValueProvided, LeaseProvided: an operation is at fault.
        TooManyOps: there are more than `max_ops`, or nested ones beyond what is left of it.
    """
    success, failure = request.success, request.failure
    left = check_size(len(request.compare), len(success), len(failure), max_ops)
    compares = [_to_compare(compare) for compare in request.compare]
    return ops.Txn(
        compares, [_to_op(op, left) for op in success], [_to_op(op, left) for op in failure]
    )


def _to_op(request: pb.RequestOp, max_ops: int) -> ops.Op:
    op: ops.Range | ops.Put | ops.DeleteRange
    match request.WhichOneof("request"):
        case "request_range":
            op = to_range(request.request_range)
        case "request_put":
            op = to_put(request.request_put)
        case "request_delete_range":
            op = to_delete_range(request.request_delete_range)
        case "request_txn":
            return to_txn(request.request_txn, max_ops)
        case _:
            raise KeyNotFound
    check_single(op)
    return op


def _to_compare(compare: pb.Compare) -> ops.Compare:
    if not compare.key:
        raise KeyNotProvided
    target = _COMPARES.get(compare.target)
    value: int | bytes
    # Read by target, not by which member of the oneof is set: an unset or another one counts as 0.
    match target:
        case ops.CompareTarget.VERSION:
            value = compare.version
        case ops.CompareTarget.CREATE:
            value = compare.create_revision
        case ops.CompareTarget.MOD:
            value = compare.mod_revision
        case ops.CompareTarget.VALUE:
            value = compare.value
        case ops.CompareTarget.LEASE:
            value = compare.lease
        case None:
            return _to_unknown_compare(compare)
        case _:
            assert_never(target)
    return ops.Compare(target, compare.result, compare.key, value, compare.range_end)


def _to_unknown_compare(compare: pb.Compare) -> ops.Compare:
    """Return what etcd makes of an unknown target: both sides are equal.

    A version is never below 0 and never another number than itself, so the two constants below
    are always false and always true.
    """
    equal = compare.result not in {ops.GREATER, ops.LESS, ops.NOT_EQUAL}
    result = ops.NOT_EQUAL + 1 if equal else ops.LESS
    return ops.Compare(ops.CompareTarget.VERSION, result, compare.key, 0, compare.range_end)


def from_range(header: bytes, result: ops.RangeResult) -> Body:
    """Return a RangeResponse. Hot."""
    kvs = result.kvs
    if len(kvs) > 1 and _is_large(kvs):
        return Pieces((header, *kvs, range_tail(more=result.more, count=result.count)))
    return _join_range(header, result)


def _is_large(kvs: Sequence[bytes]) -> bool:
    if len(kvs) > _JOINED_KEYS:
        return True
    sample = kvs[::_SAMPLE_STEP]
    return sum(map(len, sample)) * len(kvs) > JOINED_BYTES * len(sample)


def _join_range(header: bytes, result: ops.RangeResult) -> bytes:
    return b"".join((header, *result.kvs, range_tail(more=result.more, count=result.count)))


def from_chunk(fields: Sequence[bytes]) -> Body:
    """Return a RangeStreamResponse of what its RangeResponse consists of. Hot."""
    size = sum(map(len, fields))
    parts = (b"\x0a" + varint(size), *fields)
    return Pieces(parts) if size > PIECE_BYTES else b"".join(parts)


def range_tail(*, more: bool, count: int) -> bytes:
    """Return the fields of a RangeResponse that follow the keys."""
    tail = b"\x18\x01" if more else b""
    return tail + b"\x20" + varint(count) if count else tail


def from_put(header: bytes, result: ops.PutResult) -> bytes:
    """Return a PutResponse."""
    return header if result.prev is None else header + result.prev


def from_delete_range(header: bytes, result: ops.DeleteRangeResult) -> bytes:
    """Return a DeleteRangeResponse."""
    deleted = b"\x10" + varint(result.deleted) if result.deleted else b""
    return b"".join((header, deleted, *(AS_FIELD_3 + prev[1:] for prev in result.prevs)))


def from_txn(header: bytes, result: ops.TxnResult) -> bytes:
    """Return a TxnResponse. Hot."""
    if result.succeeded and len(result.results) == 1:
        (only,) = result.results
        if isinstance(only, ops.PutResult) and only.prev is None:
            # Kubernetes' creates and updates: all lengths are below 128.
            inner = nested(only.revision)
            size = len(inner)
            return b"%b\x10\x01\x1a%c\x12%c%b" % (header, size + 2, size, inner)
    succeeded = b"\x10\x01" if result.succeeded else b""
    return b"".join((header, succeeded, *_response_ops(result.results)))


def _response_ops(results: Iterable[ops.OpResult]) -> Iterable[bytes]:
    for result in results:
        yield frame(b"\x1a", _response_op(result))


def _response_op(result: ops.OpResult) -> bytes:
    match result:
        case ops.RangeResult():
            return frame(b"\x0a", _join_range(nested(result.revision), result))
        case ops.PutResult():
            return frame(b"\x12", from_put(nested(result.revision), result))
        case ops.DeleteRangeResult():
            return frame(b"\x1a", from_delete_range(nested(result.revision), result))
        case ops.TxnResult():
            return frame(b"\x22", from_txn(EMPTY, result))
        case _:
            assert_never(result)
