"""Requests become the values they mean; answers are what protobuf would have written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.errors import InvalidSortOption, KeyNotFound, KeyNotProvided
from datastore.shim.mvcc import ops
from datastore.shim.mvcc.wire import frame_key_value
from datastore.shim.rpc import convert
from datastore.shim.rpc.header import EMPTY, Headers, derive_member_id, nested
from datastore.shim.transport.api import Pieces

HEADERS = Headers(cluster_id=(1 << 64) - 5, member_id=9)
NUMBERS = st.integers(0, (1 << 63) - 1)
POSITIVE = st.integers(1, (1 << 63) - 1)
BODIES = st.binary(max_size=200)


@st.composite
def key_values(draw: st.DrawFn) -> kv_pb2.KeyValue:
    return kv_pb2.KeyValue(
        key=draw(st.binary(min_size=1, max_size=200)),
        create_revision=draw(POSITIVE),
        mod_revision=draw(POSITIVE),
        version=draw(POSITIVE),
        value=draw(BODIES),
        lease=draw(st.integers(-(1 << 63), (1 << 63) - 1)),
    )


def framed(kv: kv_pb2.KeyValue) -> bytes:
    return frame_key_value(
        kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease
    )


def header(revision: int) -> pb.ResponseHeader:
    return pb.ResponseHeader(
        cluster_id=HEADERS.cluster_id, member_id=HEADERS.member_id, revision=revision, raft_term=2
    )


@given(revision=NUMBERS)
def test_a_header_is_what_protobuf_would_have_written(revision: int) -> None:
    expected = pb.CompactionResponse(header=header(revision)).SerializeToString()
    assert HEADERS.at(revision) == expected
    assert HEADERS.at(revision) == expected
    assert HEADERS.at(0) == HEADERS.without_revision


def test_headers_of_members_and_of_nested_operations() -> None:
    assert pb.CompactionResponse.FromString(HEADERS.without_revision).header == header(0)
    assert pb.CompactionResponse.FromString(nested(7)).header == pb.ResponseHeader(revision=7)
    empty = pb.TxnResponse.FromString(EMPTY)
    assert empty.HasField("header")
    assert empty.header == pb.ResponseHeader()


def test_a_member_id_is_stable_and_differs_by_name_and_cluster() -> None:
    ids = {derive_member_id(cluster, name) for cluster in (1, 2) for name in ("a", "b")}
    assert len(ids) == 4
    assert derive_member_id(1, "a") in ids
    assert all(0 < member < 1 << 64 for member in ids)


@given(kvs=st.lists(key_values(), max_size=4), count=NUMBERS, more=st.booleans())
def test_a_range_answer_is_what_protobuf_would_have_written(
    kvs: list[kv_pb2.KeyValue], count: int, more: bool
) -> None:
    result = ops.RangeResult([framed(kv) for kv in kvs], count, more, 5)
    expected = pb.RangeResponse(header=header(5), kvs=kvs, more=more, count=count)
    assert convert.from_range(HEADERS.at(5), result) == expected.SerializeToString()


@pytest.mark.parametrize("keys", [2, 1000, 1001])
def test_a_large_range_answer_is_not_joined(keys: int) -> None:
    size = convert.JOINED_BYTES // keys
    kvs = [kv_pb2.KeyValue(key=b"%d" % number, value=bytes(size)) for number in range(keys)]
    result = ops.RangeResult([framed(kv) for kv in kvs], keys, True, 5)
    expected = pb.RangeResponse(header=header(5), kvs=kvs, more=True, count=keys)
    answer = convert.from_range(HEADERS.at(5), result)
    assert isinstance(answer, Pieces)
    assert len(answer) == expected.ByteSize()
    assert answer.join() == expected.SerializeToString()


@given(kv=st.none() | key_values())
def test_a_put_answer_is_what_protobuf_would_have_written(kv: kv_pb2.KeyValue | None) -> None:
    result = ops.PutResult(5, None if kv is None else framed(kv))
    expected = pb.PutResponse(header=header(5), prev_kv=kv)
    assert convert.from_put(HEADERS.at(5), result) == expected.SerializeToString()


@given(kvs=st.lists(key_values(), max_size=4), deleted=NUMBERS)
def test_a_delete_answer_is_what_protobuf_would_have_written(
    kvs: list[kv_pb2.KeyValue], deleted: int
) -> None:
    result = ops.DeleteRangeResult(5, deleted, [framed(kv) for kv in kvs])
    expected = pb.DeleteRangeResponse(header=header(5), deleted=deleted, prev_kvs=kvs)
    assert convert.from_delete_range(HEADERS.at(5), result) == expected.SerializeToString()


@given(kv=key_values(), succeeded=st.booleans())
def test_a_txn_answer_carries_every_kind_of_result(kv: kv_pb2.KeyValue, succeeded: bool) -> None:
    inner = pb.ResponseHeader(revision=6)
    put = ops.PutResult(6, framed(kv))
    result = ops.TxnResult(
        6,
        succeeded,
        [
            ops.RangeResult([framed(kv)], 1, False, 6),
            put,
            ops.DeleteRangeResult(6, 1, [framed(kv)]),
            ops.TxnResult(0, True, [put]),
        ],
    )
    response_put = pb.ResponseOp(response_put=pb.PutResponse(header=inner, prev_kv=kv))
    expected = pb.TxnResponse(
        header=header(6),
        succeeded=succeeded,
        responses=[
            pb.ResponseOp(response_range=pb.RangeResponse(header=inner, kvs=[kv], count=1)),
            response_put,
            pb.ResponseOp(
                response_delete_range=pb.DeleteRangeResponse(
                    header=inner, deleted=1, prev_kvs=[kv]
                )
            ),
            pb.ResponseOp(
                response_txn=pb.TxnResponse(
                    header=pb.ResponseHeader(), succeeded=True, responses=[response_put]
                )
            ),
        ],
    )
    assert pb.TxnResponse.FromString(convert.from_txn(HEADERS.at(6), result)) == expected


def test_every_field_of_a_range_request_arrives() -> None:
    request = pb.RangeRequest(
        key=b"k", range_end=b"l", limit=1, revision=2, sort_order=pb.RangeRequest.DESCEND,
        sort_target=pb.RangeRequest.VALUE, serializable=True, keys_only=True, count_only=True,
        min_mod_revision=3, max_mod_revision=4, min_create_revision=5, max_create_revision=6,
    )  # fmt: skip
    assert convert.to_range(request) == ops.Range(
        b"k", b"l", 1, 2, ops.SortOrder.DESCEND, ops.SortTarget.VALUE, True, True, True, 3, 4, 5, 6
    )


@pytest.mark.parametrize("field", [b"\x28\x03", b"\x30\x05"], ids=["order", "target"])
def test_an_unknown_sort_option_is_refused_after_an_empty_key(field: bytes) -> None:
    with pytest.raises(InvalidSortOption):
        convert.to_range(pb.RangeRequest.FromString(b"\x0a\x01k" + field))
    with pytest.raises(KeyNotProvided):
        convert.to_range(pb.RangeRequest.FromString(field))


def test_every_field_of_the_writes_arrives() -> None:
    put = pb.PutRequest(
        key=b"k", value=b"v", lease=3, prev_kv=True, ignore_value=True, ignore_lease=True
    )
    assert convert.to_put(put) == ops.Put(b"k", b"v", 3, True, True, True)
    delete = pb.DeleteRangeRequest(key=b"k", range_end=b"l", prev_kv=True)
    assert convert.to_delete_range(delete) == ops.DeleteRange(b"k", b"l", True)


def test_a_txn_arrives_with_all_its_operations() -> None:
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"p"))
    request = pb.TxnRequest(
        compare=[
            pb.Compare(result=pb.Compare.GREATER, target=pb.Compare.MOD, key=b"k", mod_revision=7),
            pb.Compare(target=pb.Compare.VALUE, key=b"k", value=b"v", range_end=b"l"),
            pb.Compare(target=pb.Compare.LEASE, key=b"k", lease=-1),
        ],
        success=[
            pb.RequestOp(request_range=pb.RangeRequest(key=b"r")),
            pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"d")),
        ],
        failure=[pb.RequestOp(request_txn=pb.TxnRequest(success=[put])), put],
    )
    target = ops.CompareTarget
    assert convert.to_txn(request) == ops.Txn(
        [
            ops.Compare(target.MOD, ops.GREATER, b"k", 7),
            ops.Compare(target.VALUE, ops.EQUAL, b"k", b"v", b"l"),
            ops.Compare(target.LEASE, ops.EQUAL, b"k", -1),
        ],
        [ops.Range(b"r"), ops.DeleteRange(b"d")],
        [ops.Txn([], [ops.Put(b"p")], []), ops.Put(b"p")],
    )


def test_a_compare_value_of_another_target_counts_as_zero() -> None:
    compare = pb.Compare(target=pb.Compare.VERSION, key=b"k", value=b"7")
    txn = convert.to_txn(pb.TxnRequest(compare=[compare]))
    assert txn.compares == [ops.Compare(ops.CompareTarget.VERSION, ops.EQUAL, b"k", 0)]


@pytest.mark.parametrize(("result", "holds"), [(0, True), (1, False), (2, False), (3, False)])
def test_an_unknown_compare_target_compares_equals(result: int, holds: bool) -> None:
    compare = pb.Compare.FromString(b"\x08" + bytes([result]) + b"\x10\x09\x1a\x01k")
    (made,) = convert.to_txn(pb.TxnRequest(compare=[compare])).compares
    assert made.target is ops.CompareTarget.VERSION
    # A version is never below 0; a result that nobody knows is true.
    assert (made.result > ops.NOT_EQUAL) is holds
    assert made.result == ops.LESS or holds


def test_an_operation_with_nothing_in_it_is_refused() -> None:
    with pytest.raises(KeyNotFound):
        convert.to_txn(pb.TxnRequest(failure=[pb.RequestOp()]))
