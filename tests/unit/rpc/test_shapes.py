"""What is decoded by hand is what protobuf decodes, or is left to it."""

from __future__ import annotations

from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.shapes import (
    DELETE,
    GET,
    KUBERNETES,
    PUT,
    agree_on_put,
    agree_on_range,
    agree_on_txn,
    txn,
)

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


def test_the_shapes_of_kubernetes_are_decoded_by_hand() -> None:
    for request in KUBERNETES:
        assert agree_on_txn(request.SerializeToString()) is not None
    put = pb.PutRequest(key=b"a", value=b"v", lease=3)
    assert agree_on_put(put.SerializeToString()) is not None
    page = pb.RangeRequest(key=b"a", range_end=b"b", limit=500, revision=9, keys_only=True)
    assert agree_on_range(page.SerializeToString()) is not None


@given(txns)
@example(txn(PUT, [GET]))
def test_a_transaction_is_what_protobuf_makes_of_it(request: Message) -> None:
    agree_on_txn(request.SerializeToString())


@given(puts)
def test_a_put_is_what_protobuf_makes_of_it(request: Message) -> None:
    agree_on_put(request.SerializeToString())


@given(ranges)
def test_a_range_is_what_protobuf_makes_of_it(request: Message) -> None:
    agree_on_range(request.SerializeToString())


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
    agree_on_txn(body)


@given(st.binary(max_size=40))
def test_noise_is_left_to_protobuf(body: bytes) -> None:
    agree_on_txn(body)
    agree_on_put(body)
    agree_on_range(body)


def test_a_length_in_too_many_octets_is_left_to_protobuf() -> None:
    for octets in range(2, 11):
        key = b"\x0a\x81" + b"\x80" * (octets - 2) + b"\0k"
        assert (agree_on_range(key) is None) == (octets > 5)
        assert (agree_on_put(key + b"\x12\x01v") is None) == (octets > 5)
