"""What is not served, and how it is said (contract 2.12; traps T40, T42, T48)."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, Code, Refusal, refused

UNKNOWN: Any = 9
"""Of no enumeration."""


@pytest.mark.parametrize(
    "method",
    [
        "KV/Missing",
        "Missing/Missing",
        "/other.Service/Method",
        "/grpc.reflection.v1.ServerReflection/X",
    ],
)
async def test_an_unknown_method_is_unimplemented_at_once(client, method):
    """T42: kube-apiserver falls back to pages on this code."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.call(method, b"", pb.PutResponse)
    assert error.value.code() == Code.UNIMPLEMENTED
    assert loop.time() - begun < 1


async def test_an_unknown_stream_is_unimplemented_at_once(client):
    """T42."""
    call = client.channel.unary_stream("/etcdserverpb.KV/MissingStream")(b"", timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()
    assert error.value.code() == Code.UNIMPLEMENTED


async def test_bytes_that_are_no_message_are_an_internal_error(client, prefix):
    """And the connection goes on."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.call("KV/Range", b"\xff\xff\xff", pb.RangeResponse)
    assert error.value.code() == Code.INTERNAL
    await client.put(prefix)


STREAMS = {
    "Watch/Watch": pb.WatchResponse,
    "Lease/LeaseKeepAlive": pb.LeaseKeepAliveResponse,
    "KV/RangeStream": pb.RangeStreamResponse,
}


@pytest.mark.parametrize("method", STREAMS)
@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"\xff\xff\xff", Code.INTERNAL, "grpc: failed to unmarshal the received message: proto"),
        (
            b"\x7a\x80\x80\x80\x01" + bytes(2 << 20),
            Code.RESOURCE_EXHAUSTED,
            "grpc: received message larger than max (2097157 vs. 2097152)",
        ),
    ],
    ids=["no message", "too large"],
)
async def test_a_stream_ends_with_what_cannot_be_received(
    client, prefix, method, body, code, text
):
    """T61: and the connection goes on."""
    call = client.channel.unary_stream(f"/etcdserverpb.{method}")(body, timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()
    assert error.value.code() == code
    assert str(error.value.details()).startswith(text)
    await client.put(prefix)


async def test_an_unknown_target_of_a_compare_is_true(client, prefix):
    await client.put(prefix)
    guard = pb.Compare(key=prefix, target=UNKNOWN, version=7)
    assert (await client.txn([guard])).succeeded


async def test_an_unknown_filter_of_a_watch_filters_nothing(client, prefix):
    async with client.watch() as stream:
        assert (await stream.create(prefix, filters=[UNKNOWN])).created
        await client.put(prefix)
        assert len((await stream.next()).events) == 1


async def test_an_unknown_kind_of_alarm_is_not_raised_by_anybody(client):
    request = pb.AlarmRequest(alarm=UNKNOWN)
    assert not (await client.call("Maintenance/Alarm", request, pb.AlarmResponse)).alarms


async def test_an_unknown_action_on_alarms_does_nothing(client):
    request = pb.AlarmRequest(action=UNKNOWN)
    assert not (await client.call("Maintenance/Alarm", request, pb.AlarmResponse)).alarms


async def test_an_unknown_action_of_a_downgrade_is_refused(client):
    request = pb.DowngradeRequest(action=UNKNOWN, version="3.6")
    with refused(Refusal(Code.UNKNOWN, "etcdserver: unknown method")):
        await client.call("Maintenance/Downgrade", request, pb.DowngradeResponse)


async def test_unknown_fields_are_tolerated(client, prefix):
    body = pb.PutRequest(key=prefix, value=b"x").SerializeToString() + b"\xfa\x3e\x01a"
    await client.call("KV/Put", body, pb.PutResponse)
    assert (await client.get(prefix)).kvs[0].value == b"x"


async def test_unknown_metadata_and_require_leader_are_accepted(server, prefix):
    metadata = (("hasleader", "true"), ("source", "cache"), ("traceparent", "00-ab-cd-01"))
    async with Client(server.target, metadata=metadata) as client:
        await client.put(prefix)
        async with client.watch() as stream:
            assert (await stream.create(prefix)).created


async def test_a_write_past_its_deadline_happens_wholly_or_not_at_all(client, prefix):
    """T47, T48."""
    outcomes = []
    for number in range(30):
        key = prefix + b"%02d" % number
        request = pb.TxnRequest(
            success=[
                pb.RequestOp(request_put=pb.PutRequest(key=key + name, value=bytes(10_000)))
                for name in (b"a", b"b")
            ]
        )
        try:
            await client.call("KV/Txn", request, pb.TxnResponse, timeout=0.0002 * number)
            outcomes.append({2})
        except grpc.aio.AioRpcError as error:
            # The server, whose clock runs too, may reset the stream before the client gives up.
            if error.code() not in {Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE, Code.CANCELLED}:
                raise
            outcomes.append({0, 2})
    await client.put(prefix + b"last")
    for number, allowed in enumerate(outcomes):
        found = await client.list(prefix + b"%02d" % number)
        assert found.count in allowed
        assert all(kv.version == 1 for kv in found.kvs)


@pytest.mark.parametrize(
    "body",
    [b"\x08" + b"\x80" * 9 + b"\x05", b"\x3b\x01" + bytes(8) + b"\x3c"],
    ids=["a number of more than 64 bits", "a group with a field 0"],
)
async def test_what_only_protobuf_in_c_reads_is_unreadable(client, body):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.call("Lease/LeaseTimeToLive", body, pb.LeaseTimeToLiveResponse)
    assert error.value.code() == Code.INTERNAL
