"""Damaged and odd request bytes are answered as etcd answers them."""

from __future__ import annotations

from typing import Any

import grpc.aio
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, get_op, put_op, when
from tests.support.messages import damaged
from tests.support.pair import Pair
from tests.support.programs import comparable
from tests.support.soaking import for_long
from tests.support.strict_wire import reads

METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "KV/Range": (pb.RangeRequest, pb.RangeResponse),
    "KV/Put": (pb.PutRequest, pb.PutResponse),
    "KV/DeleteRange": (pb.DeleteRangeRequest, pb.DeleteRangeResponse),
    "KV/Txn": (pb.TxnRequest, pb.TxnResponse),
    "Lease/LeaseTimeToLive": (pb.LeaseTimeToLiveRequest, pb.LeaseTimeToLiveResponse),
}
SOUND: tuple[tuple[str, Message], ...] = (
    ("KV/Range", pb.RangeRequest(key=b"a", range_end=b"c", limit=2, sort_target=3, sort_order=2)),  # type: ignore[arg-type]
    ("KV/Put", pb.PutRequest(key=b"a", value=b"1", prev_kv=True)),
    ("KV/DeleteRange", pb.DeleteRangeRequest(key=b"b", prev_kv=True)),
    (
        "KV/Txn",
        pb.TxnRequest(
            compare=[when(b"a", ">", version=0), when(b"b", "!=", value=b"x")],
            success=[put_op(b"b", b"2"), get_op(b"a", b"c")],
            failure=[get_op(b"b", limit=1), put_op(b"a", b"3")],
        ),
    ),
    ("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=5, keys=True)),
)


odd_requests = st.sampled_from(SOUND).flatmap(
    lambda sound: st.tuples(st.just(sound[0]), damaged(sound[1].SerializeToString()))
)


async def outcome(client: Client, method: str, body: bytes) -> object:
    """Send bytes; of a refusal only the code counts, for damage has many faults at once."""
    _, kind = METHODS[method]
    try:
        return comparable(await client.call(method, body, kind))
    except grpc.aio.AioRpcError as error:
        return error.code().name


async def agree(ours: Client, etcds: Client, method: str, body: bytes) -> None:
    """Send the same bytes to both; the parser in C takes a little more than Go's."""
    mine, other = await outcome(ours, method, body), await outcome(etcds, method, body)
    kind: Any = METHODS[method][0]
    assert mine == other or (other == "INTERNAL" and not reads(body, kind.DESCRIPTOR))


def dangerous(method: str, body: bytes) -> bool:
    """Say whether the damage made what kills etcd 3.7.3 (T56)."""
    if method != "KV/Txn":
        return False
    try:
        txn = pb.TxnRequest.FromString(body)
    except DecodeError:
        return False
    return "request_delete_range" in str(txn)


def run(pair: Pair, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(odd_requests)
    def requests(request: tuple[str, bytes]) -> None:
        if not dangerous(*request):
            pair.run(agree, *request)

    requests()


def test_damaged_requests_have_the_same_answers(pair):
    run(pair, examples=300)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_many_damaged_requests_have_the_same_answers(pair):
    for_long(lambda: run(pair, examples=1000))
