"""What is not served, and how it is said (contract 2.12; traps T40, T42, T48)."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, Code


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
            if error.code() not in {Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE}:
                raise
            outcomes.append({0, 2})
    await client.put(prefix + b"last")
    for number, allowed in enumerate(outcomes):
        found = await client.list(prefix + b"%02d" % number)
        assert found.count in allowed
        assert all(kv.version == 1 for kv in found.kvs)
