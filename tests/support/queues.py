"""Clients of the lock and election services, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.message import Message

from datastore.etcdpb import election_pb2 as epb
from datastore.etcdpb import lock_pb2 as lpb
from tests.support.client import SECONDS, Answer, Client, Code, Refusal

LOST = Refusal(Code.UNKNOWN, "mutex: session is expired")
NOT_LEADER = Refusal(Code.UNKNOWN, "election: not leader")
NO_LEADER = Refusal(Code.UNKNOWN, "election: no leader")
LEADER_MISSING = Refusal(Code.UNKNOWN, '"leader" field must be provided')
CODELESS_NO_LEASE = Refusal(Code.UNKNOWN, "etcdserver: requested lease not found")
CODELESS_NO_KEY = Refusal(Code.UNKNOWN, "etcdserver: key is not provided")


async def lock(client: Client, name: bytes, lease: int = 0, **options: Any) -> lpb.LockResponse:
    """Wait for a lock."""
    request = lpb.LockRequest(name=name, lease=lease)
    return await _call(client, "/v3lockpb.Lock/Lock", request, lpb.LockResponse, options)


async def unlock(client: Client, key: bytes) -> lpb.UnlockResponse:
    """Let a lock go."""
    request = lpb.UnlockRequest(key=key)
    return await client.call("/v3lockpb.Lock/Unlock", request, lpb.UnlockResponse)


async def campaign(
    client: Client, name: bytes, lease: int, value: bytes = b"", **options: Any
) -> epb.CampaignResponse:
    """Wait until the lease leads."""
    request = epb.CampaignRequest(name=name, lease=lease, value=value)
    method = "/v3electionpb.Election/Campaign"
    return await _call(client, method, request, epb.CampaignResponse, options)


async def proclaim(
    client: Client, leader: epb.LeaderKey | None, value: bytes = b""
) -> epb.ProclaimResponse:
    """Show another value."""
    request = epb.ProclaimRequest(leader=leader, value=value)
    return await client.call("/v3electionpb.Election/Proclaim", request, epb.ProclaimResponse)


async def resign(client: Client, leader: epb.LeaderKey | None) -> epb.ResignResponse:
    """Lead no more."""
    request = epb.ResignRequest(leader=leader)
    return await client.call("/v3electionpb.Election/Resign", request, epb.ResignResponse)


async def get_leader(client: Client, name: bytes) -> epb.LeaderResponse:
    """Ask who leads."""
    request = epb.LeaderRequest(name=name)
    return await client.call("/v3electionpb.Election/Leader", request, epb.LeaderResponse)


class Observed:
    """What an observer is told."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def next(self) -> epb.LeaderResponse:
        """Return the next leader or proclamation."""
        answer: epb.LeaderResponse = await asyncio.wait_for(self._call.read(), SECONDS)
        return answer


@asynccontextmanager
async def observing(client: Client, name: bytes) -> AsyncIterator[Observed]:
    """Observe an election."""
    call: Any = client.channel.unary_stream(
        "/v3electionpb.Election/Observe",
        request_serializer=epb.LeaderRequest.SerializeToString,
        response_deserializer=epb.LeaderResponse.FromString,
    )(epb.LeaderRequest(name=name))
    try:
        yield Observed(call)
    finally:
        call.cancel()


async def queued(client: Client, prefix: bytes, count: int) -> None:
    """Return when so many keys stand in a queue."""
    while (await client.list(prefix, count_only=True)).count != count:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.02)


async def _call(
    client: Client, method: str, request: Message, answer: type[Answer], options: dict[str, Any]
) -> Answer:
    return await client.call(method, request, answer, **options)
