"""What is decoded by hand is what protobuf decodes, or is left to it."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.mvcc import ops
from datastore.shim.mvcc.check import check
from datastore.shim.rpc import convert, shapes

KEYS = st.one_of(st.sampled_from([b"/registry/pods/default/a", b"k"]), st.binary(max_size=200))
INT64 = st.one_of(st.integers(0, 300), st.integers(-(1 << 63), (1 << 63) - 1))

puts = st.builds(
    pb.PutRequest,
    key=KEYS,
    value=st.one_of(st.binary(max_size=20), st.just(b"v" * 20_000)),
    lease=INT64,
    prev_kv=st.booleans(),
    ignore_value=st.sampled_from([False, False, True]),
)
deletes = st.builds(
    pb.DeleteRangeRequest,
    key=KEYS,
    range_end=st.one_of(st.just(b""), KEYS),
    prev_kv=st.booleans(),
)
ranges = st.builds(
    pb.RangeRequest,
    key=KEYS,
    range_end=st.one_of(st.just(b""), KEYS),
    limit=INT64,
    revision=INT64,
    sort_order=st.sampled_from([0, 0, 1]),
    serializable=st.booleans(),
    keys_only=st.booleans(),
    count_only=st.booleans(),
    min_mod_revision=st.sampled_from([0, 0, 5]),
)
operations = st.one_of(
    st.builds(pb.RequestOp, request_put=puts),
    st.builds(pb.RequestOp, request_delete_range=deletes),
    st.builds(pb.RequestOp, request_range=ranges),
)
compares = st.builds(
    pb.Compare,
    result=st.sampled_from([0, 0, 1]),
    target=st.sampled_from([2, 2, 0]),
    key=KEYS,
    mod_revision=INT64,
)
txns = st.builds(
    pb.TxnRequest,
    compare=st.lists(compares, min_size=1, max_size=2),
    success=st.lists(operations, max_size=2),
    failure=st.lists(operations, max_size=2),
)


def txn(success: pb.RequestOp, failure: list[pb.RequestOp], revision: int = 7) -> pb.TxnRequest:
    guard = pb.Compare(
        target=pb.Compare.MOD, result=pb.Compare.EQUAL, key=b"a", mod_revision=revision
    )
    return pb.TxnRequest(compare=[guard], success=[success], failure=failure)


PUT = pb.RequestOp(request_put=pb.PutRequest(key=b"a", value=b"v" * 1024, lease=1 << 62))
DELETE = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"a", prev_kv=True))
GET = pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))


def agree(
    decode: Callable[[bytes], ops.Op | None],
    parse: Callable[[bytes], ops.Op],
    body: bytes,
) -> ops.Op | None:
    found = decode(body)
    if found is not None:
        expected = parse(body)
        assert _plain(found) == _plain(expected)
        check(expected)
    return found


def _plain(value: object) -> object:
    """Make a list of every sequence: only what they hold matters."""
    if isinstance(value, tuple | list):
        return [type(value).__name__.replace("list", "tuple"), *map(_plain, value)]
    return value


def parse_txn(body: bytes) -> ops.Op:
    return convert.to_txn(pb.TxnRequest.FromString(body))


def parse_put(body: bytes) -> ops.Op:
    return convert.to_put(pb.PutRequest.FromString(body))


def parse_range(body: bytes) -> ops.Op:
    return convert.to_range(pb.RangeRequest.FromString(body))


def test_the_shapes_of_kubernetes_are_decoded_by_hand() -> None:
    for request in (txn(PUT, []), txn(PUT, [GET]), txn(DELETE, [GET]), txn(PUT, [GET], 0)):
        assert agree(shapes.decode_txn, parse_txn, request.SerializeToString()) is not None
    put = pb.PutRequest(key=b"a", value=b"v", lease=3)
    assert agree(shapes.decode_put, parse_put, put.SerializeToString()) is not None
    page = pb.RangeRequest(key=b"a", range_end=b"b", limit=500, revision=9, keys_only=True)
    assert agree(shapes.decode_range, parse_range, page.SerializeToString()) is not None


@given(txns)
@example(txn(PUT, [GET]))
def test_a_transaction_is_what_protobuf_makes_of_it(request: Message) -> None:
    agree(shapes.decode_txn, parse_txn, request.SerializeToString())


@given(puts)
def test_a_put_is_what_protobuf_makes_of_it(request: Message) -> None:
    agree(shapes.decode_put, parse_put, request.SerializeToString())


@given(ranges)
def test_a_range_is_what_protobuf_makes_of_it(request: Message) -> None:
    agree(shapes.decode_range, parse_range, request.SerializeToString())


@given(
    st.sampled_from([txn(PUT, [GET]), txn(DELETE, [GET])]),
    st.integers(0, 200),
    st.integers(0, 255),
    st.sampled_from(["replace", "insert", "cut"]),
)
def test_a_broken_transaction_is_left_to_protobuf(
    request: Message, at: int, octet: int, how: str
) -> None:
    body = request.SerializeToString()
    at %= len(body)
    keep = at + (how == "replace")
    body = body[:at] if how == "cut" else body[:at] + bytes([octet]) + body[keep:]
    agree(shapes.decode_txn, parse_txn, body)


@given(st.binary(max_size=40))
def test_noise_is_left_to_protobuf(body: bytes) -> None:
    agree(shapes.decode_txn, parse_txn, body)
    agree(shapes.decode_put, parse_put, body)
    agree(shapes.decode_range, parse_range, body)
