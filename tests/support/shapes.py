"""What is decoded by hand is what protobuf decodes, or is left to it."""

from __future__ import annotations

from collections.abc import Callable

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.mvcc import ops
from datastore.shim.mvcc.check import check
from datastore.shim.rpc import convert, shapes


def txn(success: pb.RequestOp, failure: list[pb.RequestOp], revision: int = 7) -> pb.TxnRequest:
    """Return a transaction that guards a key by its revision."""
    guard = pb.Compare(
        target=pb.Compare.MOD, result=pb.Compare.EQUAL, key=b"a", mod_revision=revision
    )
    return pb.TxnRequest(compare=[guard], success=[success], failure=failure)


PUT = pb.RequestOp(request_put=pb.PutRequest(key=b"a", value=b"v" * 1024, lease=1 << 62))
DELETE = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"a", prev_kv=True))
GET = pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))
KUBERNETES = (txn(PUT, []), txn(PUT, [GET]), txn(DELETE, [GET]), txn(PUT, [GET], 0))
"""Transactions as kube-apiserver sends them."""


def agree_on_txn(body: bytes) -> ops.Op | None:
    """Return what is decoded by hand, if anything; fail unless it is what protobuf decodes."""
    return _agree(
        shapes.decode_txn, lambda raw: convert.to_txn(pb.TxnRequest.FromString(raw)), body
    )


def agree_on_put(body: bytes) -> ops.Op | None:
    """Do the same for a put."""
    return _agree(
        shapes.decode_put, lambda raw: convert.to_put(pb.PutRequest.FromString(raw)), body
    )


def agree_on_range(body: bytes) -> ops.Op | None:
    """Do the same for a range."""
    return _agree(
        shapes.decode_range, lambda raw: convert.to_range(pb.RangeRequest.FromString(raw)), body
    )


def _agree(
    decode: Callable[[bytes], ops.Op | None], parse: Callable[[bytes], ops.Op], body: bytes
) -> ops.Op | None:
    found = decode(body)
    if found is not None:
        expected = parse(body)
        assert _plain(found) == _plain(expected), (found, expected)
        check(expected)
    return found


def _plain(value: object) -> object:
    """Make a list of every sequence: only what they hold matters."""
    if isinstance(value, tuple | list):
        return [type(value).__name__.replace("list", "tuple"), *map(_plain, value)]
    return value
