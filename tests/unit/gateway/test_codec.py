"""Messages as JSON: what protobuf's own JSON says is the oracle for what is no mistake."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from datastore.etcdpb import auth_pb2, kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.gateway import codec
from datastore.shim.gateway.codec import BadJson

int64 = st.integers(-(1 << 63), (1 << 63) - 1)
ranges = st.builds(
    pb.RangeRequest,
    key=st.binary(max_size=9),
    range_end=st.binary(max_size=9),
    limit=int64,
    sort_order=st.integers(0, 5),
    serializable=st.booleans(),
)
compares = st.one_of(
    st.builds(pb.Compare, target=st.integers(0, 5), key=st.binary(max_size=9), version=int64),
    st.builds(pb.Compare, value=st.binary(max_size=9), range_end=st.binary(max_size=9)),
)
ops = st.deferred(
    lambda: st.one_of(
        st.builds(pb.RequestOp, request_range=ranges),
        st.builds(pb.RequestOp, request_txn=txns),
        st.just(pb.RequestOp()),
    )
)
txns: st.SearchStrategy[Message] = st.builds(
    pb.TxnRequest, compare=st.lists(compares, max_size=3), success=st.lists(ops, max_size=2)
)
answers = st.one_of(
    st.builds(
        pb.StatusResponse,
        version=st.text(max_size=9),
        dbSize=int64,
        raftTerm=st.integers(0, (1 << 64) - 1),
        errors=st.lists(st.text(max_size=9), max_size=3),
        isLearner=st.booleans(),
    ),
    st.builds(pb.HashKVResponse, hash=st.integers(0, (1 << 32) - 1), compact_revision=int64),
    st.builds(
        kv_pb2.Event, type=st.integers(0, 3), kv=st.builds(kv_pb2.KeyValue, key=st.binary())
    ),
    st.builds(auth_pb2.Role, name=st.binary(max_size=9)),
    txns,
)


@given(answers)
def test_a_message_reads_as_protobuf_writes_it_and_is_read_back(message: Message) -> None:
    text = codec.encode(message)
    plain = json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert json.loads(text) == plain
    assert codec.decode(text, type(message)) == message


@given(answers, st.text(" \t\r\n", max_size=3))
def test_what_protobuf_writes_is_read_in_either_spelling(message: Message, space: str) -> None:
    for kept in (True, False):
        text = json_format.MessageToJson(message, preserving_proto_field_name=kept)
        assert codec.decode((space + text + space).encode(), type(message)) == message


jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["key", "success", "compare", "limit", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.one_of(st.binary(max_size=99), jsons.map(lambda value: json.dumps(value).encode())))
def test_whatever_comes_is_a_message_or_refused(text: bytes) -> None:
    for kind in (pb.RangeRequest, pb.TxnRequest, pb.WatchRequest, pb.AlarmRequest):
        with suppress(BadJson):
            assert isinstance(codec.decode(text, kind), kind)


@pytest.mark.parametrize("depth", [900, 100_000])
def test_what_is_nested_without_end_is_refused(depth: int) -> None:
    nested = b'{"success":[{"request_txn":' * depth + b"{}" + b"}]}" * depth
    for text in (nested, b'{"x":' + b"[" * depth, b'{"x":' + b'{"x":' * depth):
        with pytest.raises(BadJson):
            codec.decode(text, pb.TxnRequest)


@pytest.mark.parametrize("number", ["1e999999999", "9" * 100_000, "0." + "0" * 100_000 + "1"])
def test_a_number_that_takes_long_to_read_is_refused(number: str) -> None:
    for text in (number, f'"{number}"'):
        with pytest.raises(BadJson) as error:
            codec.decode(b'{"limit":%b}' % text.encode(), pb.RangeRequest)
        assert len(str(error.value)) < 200
