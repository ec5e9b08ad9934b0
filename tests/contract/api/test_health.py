"""grpc.health.v1.Health (contract 1.3)."""

from __future__ import annotations

import asyncio

import pytest

from datastore.etcdpb import health_pb2 as pb
from tests.support.client import Code, Refusal, refused

CHECK, LIST, WATCH = (f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch"))
SERVING = pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)


async def watch(client, service):
    call = client.channel.unary_stream(
        WATCH,
        request_serializer=pb.HealthCheckRequest.SerializeToString,
        response_deserializer=pb.HealthCheckResponse.FromString,
    )(pb.HealthCheckRequest(service=service))
    return call, await asyncio.wait_for(call.read(), 30)


async def test_the_server_as_a_whole_is_serving(client):
    assert await client.call(CHECK, pb.HealthCheckRequest(), pb.HealthCheckResponse) == SERVING


@pytest.mark.parametrize("service", ["missing", "etcdserverpb.KV"])
async def test_a_named_service_is_unknown(client, service):
    with refused(Refusal(Code.NOT_FOUND, "unknown service")):
        request = pb.HealthCheckRequest(service=service)
        await client.call(CHECK, request, pb.HealthCheckResponse)


async def test_the_list_has_the_server_as_a_whole(client):
    told = await client.call(LIST, pb.HealthListRequest(), pb.HealthListResponse)
    assert dict(told.statuses) == {"": SERVING}


async def test_watching_tells_the_state_at_once_and_goes_on(client):
    call, told = await watch(client, "")
    assert told == SERVING
    assert not call.done()
    call.cancel()


async def test_watching_a_service_that_is_unknown_says_so_and_goes_on(client):
    call, told = await watch(client, "missing")
    assert told.status == pb.HealthCheckResponse.SERVICE_UNKNOWN
    assert not call.done()
    call.cancel()
