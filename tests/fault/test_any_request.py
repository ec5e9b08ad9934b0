"""Any bytes to every RPC: an answer or a refusal, never a traceback, a hang or an end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import grpc.aio
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from datastore.etcdpb import (
    election_pb2,
    health_pb2,
    lock_pb2,
    reflection_pb2,
    reflection_v1alpha_pb2,
)
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import SECONDS, Client, Code
from tests.support.messages import damaged, messages
from tests.support.running import Server
from tests.support.shim import shim
from tests.support.soaking import for_long

FILES: Sequence[Any] = (
    pb,
    lock_pb2,
    election_pb2,
    health_pb2,
    reflection_pb2,
    reflection_v1alpha_pb2,
)
UNREADABLE = "proto: cannot parse invalid wire-format data"
CUT_SHORT = "Internal error from Core"
"""What grpc.aio makes of a call that ended while it was writing."""
CRASHED = "etcdserver: internal error"
PATIENCE_SECONDS = 0.05
"""How long to listen to a call that has no end by itself."""


class Method(NamedTuple):
    """One RPC."""

    path: str
    request: Descriptor
    streams: bool
    """It takes several messages."""
    endless: bool
    """It may answer late, or for ever."""


class Call(NamedTuple):
    """What is sent to one RPC; to one that streams in several messages."""

    method: Method
    bodies: list[bytes]


def to_method(found: MethodDescriptor) -> Method:
    path = f"/{found.containing_service.full_name}/{found.name}"
    waits = path in {"/v3lockpb.Lock/Lock", "/v3electionpb.Election/Campaign"}
    return Method(path, found.input_type, found.client_streaming, waits or found.server_streaming)


METHODS = [
    to_method(method)
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Draw an RPC, and requests that are random, damaged, or no messages at all."""
    method = draw(st.sampled_from(METHODS))
    body = messages(method.request).flatmap(lambda drawn: damaged(drawn.SerializeToString()))
    bodies = st.one_of(body, body, body, st.binary(max_size=40))
    most = 3 if method.streams else 1
    return Call(method, draw(st.lists(bodies, min_size=1, max_size=most)))


class Victim:
    """A server, and a connection that has to outlive every call."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._connect())

    async def _connect(self) -> Client:
        return Client(self._server.target)

    def send(self, program: Sequence[Call]) -> None:
        """Make the calls; then an ordinary request has to be served, and nothing be logged."""
        self._runner.run(self._send(program))
        assert "Traceback" not in self._server.log.read_text(errors="replace")

    async def _send(self, program: Sequence[Call]) -> None:
        for call in program:
            check_refusal(call.method, *await self._outcome(call))
        await self._disarm()
        assert (await self._client.get(b"a")).header.revision

    async def _outcome(self, call: Call) -> tuple[grpc.StatusCode, str]:
        seconds = PATIENCE_SECONDS if call.method.endless else SECONDS
        channel, path = self._client.channel, call.method.path
        raw: Any
        if call.method.streams:
            several: Any = channel.stream_stream(path)
            raw = several(timeout=seconds)
            # Not by an iterator: grpc.aio cancels a call that ends before it has sent them all.
            with suppress(grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
                for body in call.bodies:
                    await raw.write(body)
                await raw.done_writing()
        else:
            single: Any = channel.unary_stream(path)
            raw = single(call.bodies[0], timeout=seconds)
        with suppress(grpc.aio.AioRpcError):
            async for _ in raw:
                pass
        return await raw.code(), str(await raw.details())

    async def _disarm(self) -> None:
        """Take back the alarms that were raised: with one for corruption nothing is read."""
        listed = await self._client.call("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse)
        for found in listed.alarms:
            off: Any = pb.AlarmRequest.DEACTIVATE
            request = pb.AlarmRequest(action=off, memberID=found.memberID, alarm=found.alarm)
            await self._client.call("Maintenance/Alarm", request, pb.AlarmResponse)

    def close(self) -> None:
        """Hang up; the server has to be able to end in order."""
        self._runner.run(self._client.channel.close(None))
        self._runner.close()
        assert self._server.stop() == 0


def check_refusal(method: Method, code: grpc.StatusCode, text: str) -> None:
    """Fail if an outcome is a defect: a crash, a hang, or something that is not served."""
    said = f"{method.path}: {code} {text}"
    assert text != CRASHED, said
    assert code != Code.INTERNAL or UNREADABLE in text or text == CUT_SHORT, said
    assert code != Code.UNIMPLEMENTED or "does not support" in text, said
    assert method.endless or code != Code.DEADLINE_EXCEEDED, said


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def victim(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Victim]:
    server = shim(tmp_path_factory.mktemp("any"), request.param, ["--bcrypt-cost=4"])
    server.start()
    try:
        found = Victim(server)
        yield found
        found.close()
    finally:
        server.close()


def run(victim: Victim, examples: int) -> None:
    @settings(
        phases=[Phase.generate],
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(calls(), min_size=1, max_size=12))
    def programs(program: list[Call]) -> None:
        victim.send(program)

    programs()


def test_any_request_is_answered_or_refused(victim):
    run(victim, examples=100)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_any_of_many_requests_is_answered_or_refused(victim):
    for_long(lambda: run(victim, examples=500))
