"""grpc.health.v1.Health: whether the store can serve, told truly."""

from __future__ import annotations

import asyncio

from datastore.etcdpb import health_pb2 as pb
from datastore.shim.health import Health
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call, Code, RpcError


class HealthService:
    """Check, Watch and List of the service without a name, which is the whole server."""

    def __init__(self, desk: Desk) -> None:
        self._health = desk.health
        self._changed = asyncio.Event()
        desk.health.on_change(self._wake)
        desk.unary("/grpc.health.v1.Health/Check", self.check)
        desk.unary("/grpc.health.v1.Health/List", self.list)
        desk.stream("/grpc.health.v1.Health/Watch", self.watch, "server_stream")

    def check(self, call: Call, body: bytes) -> bytes:
        """Answer the state of now; a service that is not known is NOT_FOUND."""
        if pb.HealthCheckRequest.FromString(body).service:
            raise RpcError(Code.NOT_FOUND, "unknown service")
        return _answer(self._health)

    def list(self, call: Call, body: bytes) -> bytes:
        """Answer the state of now of every service there is to ask for."""
        pb.HealthListRequest.FromString(body)
        statuses = {"": pb.HealthCheckResponse(status=_status(self._health))}
        return pb.HealthListResponse(statuses=statuses).SerializeToString()

    async def watch(self, call: Call) -> None:
        """Send the state of now and every other one afterwards."""
        request = pb.HealthCheckRequest.FromString(await call.recv() or b"")
        last = None
        while True:
            changed = self._changed
            answer = _UNKNOWN if request.service else _answer(self._health)
            if answer != last:
                await call.send(answer)
                last = answer
            await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


_UNKNOWN = pb.HealthCheckResponse(
    status=pb.HealthCheckResponse.SERVICE_UNKNOWN
).SerializeToString()


def _answer(health: Health) -> bytes:
    return pb.HealthCheckResponse(status=_status(health)).SerializeToString()


def _status(health: Health) -> pb.HealthCheckResponse.ServingStatus.ValueType:
    serving, not_serving = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
    return serving if health.serving else not_serving
