"""grpc.health.v1 says whether the database is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from datastore.etcdpb import health_pb2 as pb
from datastore.shim.backends.memory import Fault, Faults, MemoryBackend
from datastore.shim.options import ServeOptions
from datastore.shim.server import Shim
from tests.support.client import Client

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING


class Away(Faults):
    """While `away`, everything is refused."""

    away = False

    def read(self, operation: str) -> Fault | None:
        return Fault.UNAVAILABLE if self.away else None


async def test_watching_tells_each_time_that_the_database_goes_and_comes(tmp_path: Path) -> None:
    socket, faults = tmp_path / "grpc.sock", Away()
    options = ServeOptions(datastore="", listen_client_urls=(f"unix://{socket}",))
    backend = MemoryBackend(None, faults, shared=True, inline=False)
    async with Shim(options, backend), Client(f"unix:{socket}") as client:
        call = client.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=pb.HealthCheckRequest.SerializeToString,
            response_deserializer=pb.HealthCheckResponse.FromString,
        )(pb.HealthCheckRequest())

        async def told() -> int:
            answer = await asyncio.wait_for(call.read(), 30)
            assert isinstance(answer, pb.HealthCheckResponse)
            return answer.status

        async def checked() -> tuple[int, int]:
            path = "/grpc.health.v1.Health/"
            check = await client.call(f"{path}Check", b"", pb.HealthCheckResponse)
            listed = await client.call(f"{path}List", b"", pb.HealthListResponse)
            return check.status, listed.statuses[""].status

        assert await told() == SERVING
        for _ in range(2):
            faults.away = True
            assert await told() == NOT_SERVING
            assert await checked() == (NOT_SERVING, NOT_SERVING)
            faults.away = False
            assert await told() == SERVING
            assert await checked() == (SERVING, SERVING)
        call.cancel()
