"""Requests decoded by hand, beside protobuf."""

from __future__ import annotations

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.shapes import KUBERNETES, agree_on_put, agree_on_range, agree_on_txn

SEEDS = [
    *(request.SerializeToString() for request in KUBERNETES),
    pb.PutRequest(key=b"a", value=b"v", lease=3).SerializeToString(),
    pb.RangeRequest(
        key=b"a", range_end=b"b", limit=500, revision=9, serializable=True, keys_only=True
    ).SerializeToString(),
]


def attempt(data: bytes) -> None:
    """Decode it as each of the three."""
    agree_on_txn(data)
    agree_on_put(data)
    agree_on_range(data)
