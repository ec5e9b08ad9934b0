"""etcdserverpb.Lease."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.errors import LeaseExists, LeaseTtlTooLarge
from datastore.shim.expirer import Expirer
from datastore.shim.mvcc.ops import LeaseGrant, LeaseRevoke, Result
from datastore.shim.replica import Replica
from datastore.shim.rpc.kv import REQUEST_SECONDS
from datastore.shim.rpc.quota import Quota
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call
from datastore.shim.writer import Writer

MAX_TTL_SECONDS: Final = 9_000_000_000
MOST_RENEWALS: Final = 1000
"""Renewals of one stream under way; more are not read yet."""
_UNKNOWN: Final = -1


class LeaseService:
    """Grant, Revoke, KeepAlive, TimeToLive, Leases."""

    def __init__(
        self,
        desk: Desk,
        replica: Replica,
        writer: Writer,
        expirer: Expirer,
        *,
        quota: Quota,
        min_ttl: int,
    ) -> None:
        self._headers = desk.headers
        self._replica = replica
        self._writer = writer
        self._expirer = expirer
        self._quota = quota
        self._min_ttl = min_ttl
        self._now = asyncio.get_running_loop().time
        desk.unary("/etcdserverpb.Lease/LeaseGrant", self.grant)
        desk.unary("/etcdserverpb.Lease/LeaseRevoke", self.revoke)
        desk.stream("/etcdserverpb.Lease/LeaseKeepAlive", self.keep_alive)
        desk.unary("/etcdserverpb.Lease/LeaseTimeToLive", self.time_to_live)
        desk.unary("/etcdserverpb.Lease/LeaseLeases", self.leases)

    async def grant(self, call: Call, body: bytes) -> bytes:
        """Grant a lease; an id of 0 lets the server choose."""
        request = pb.LeaseGrantRequest.FromString(body)
        if request.TTL > MAX_TTL_SECONDS:
            raise LeaseTtlTooLarge
        if self._quota.is_near(len(body)):
            await self._quota.admit(len(body))
        ttl = max(request.TTL, self._min_ttl)
        while True:
            lease = request.ID or secrets.randbelow((1 << 63) - 1) + 1
            try:
                result = await self._submit(LeaseGrant(lease, ttl), len(body))
            except LeaseExists:
                if request.ID:
                    raise
            else:
                answer = pb.LeaseGrantResponse(ID=lease, TTL=ttl)
                return self._headers.at(result.revision) + answer.SerializeToString()

    async def revoke(self, call: Call, body: bytes) -> bytes:
        """End a lease and delete its keys."""
        request = pb.LeaseRevokeRequest.FromString(body)
        result = await self._submit(LeaseRevoke(request.ID), len(body))
        return self._headers.at(result.revision)

    async def keep_alive(self, call: Call) -> None:
        """Answer each renewal in order; an unknown lease has TTL 0, which is no error.

        Renewals do not wait for one another: a client sends those of all its leases here.
        """
        under_way: asyncio.Queue[tuple[int, asyncio.Task[int]] | None] = asyncio.Queue()
        room = asyncio.Semaphore(MOST_RENEWALS)
        reading = asyncio.create_task(self._take_renewals(call, under_way, room))
        try:
            while (renewal := await under_way.get()) is not None:
                lease, ttl = renewal
                answer = pb.LeaseKeepAliveResponse(ID=lease, TTL=await ttl)
                await call.send(self._header() + answer.SerializeToString())
                room.release()
            await reading
        finally:
            reading.cancel()
            while not under_way.empty():
                if (renewal := under_way.get_nowait()) is not None:
                    renewal[1].cancel()

    async def _take_renewals(
        self,
        call: Call,
        under_way: asyncio.Queue[tuple[int, asyncio.Task[int]] | None],
        room: asyncio.Semaphore,
    ) -> None:
        try:
            while await room.acquire() and (body := await call.recv()) is not None:
                lease = pb.LeaseKeepAliveRequest.FromString(body).ID
                ttl = asyncio.create_task(self._expirer.keep_alive(lease))
                under_way.put_nowait((lease, ttl))
        finally:
            under_way.put_nowait(None)

    async def time_to_live(self, call: Call, body: bytes) -> bytes:
        """Tell how long a lease has left, and its keys where asked."""
        request = pb.LeaseTimeToLiveRequest.FromString(body)
        answer = pb.LeaseTimeToLiveResponse(ID=request.ID, TTL=_UNKNOWN)
        left = await self._expirer.remaining(request.ID)
        info = self._replica.store.leases.find(request.ID)
        if left is not None and info is not None:
            answer.TTL = left
            answer.grantedTTL = info.ttl
            if request.keys:
                answer.keys.extend(sorted(info.keys))
        return self._header() + answer.SerializeToString()

    async def leases(self, call: Call, body: bytes) -> bytes:
        """List the leases, the one that ends first in front."""
        await self._replica.read_index()
        answer = pb.LeaseLeasesResponse(
            leases=[pb.LeaseStatus(ID=lease) for lease in self._replica.store.leases.ids()]
        )
        return self._header() + answer.SerializeToString()

    async def _submit(self, op: LeaseGrant | LeaseRevoke, size: int) -> Result:
        return await self._writer.write(op, size, self._now() + REQUEST_SECONDS)

    def _header(self) -> bytes:
        return self._headers.at(self._replica.store.revision)
