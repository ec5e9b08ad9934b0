"""etcdserverpb.Lease."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import Final

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.errors import LeaseExists, LeaseTtlTooLarge
from datastore.shim.expirer import Expirer
from datastore.shim.mvcc.auth import ANONYMOUS, Auth, Caller, Identity
from datastore.shim.mvcc.ops import LeaseGrant, LeaseRevoke, Result
from datastore.shim.mvcc.permits import check_lease, check_lease_read
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
LeaseCheck = Callable[[Auth, Identity, Iterable[bytes]], None]


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
        self._guard = desk.guard
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
        if self._quota.is_near(len(body)):
            await self._quota.admit(len(body))
        await self._guard.require_user(call)
        if request.TTL > MAX_TTL_SECONDS:
            raise LeaseTtlTooLarge
        ttl = max(request.TTL, self._min_ttl)
        while True:
            lease = request.ID or secrets.randbelow((1 << 63) - 1) + 1
            try:
                result = await self._submit(LeaseGrant(lease, ttl), ANONYMOUS, len(body))
            except LeaseExists:
                if request.ID:
                    raise
            else:
                answer = pb.LeaseGrantResponse(ID=lease, TTL=ttl)
                return self._headers.at(result.revision) + answer.SerializeToString()

    async def revoke(self, call: Call, body: bytes) -> bytes:
        """End a lease and delete its keys."""
        request = pb.LeaseRevokeRequest.FromString(body)
        await self._guard.require_user(call)
        op = LeaseRevoke(request.ID)
        result = await self._guard.act(call, lambda caller: self._submit(op, caller, len(body)))
        return self._headers.at(result.revision)

    async def keep_alive(self, call: Call) -> None:
        """Answer each renewal in order; an unknown lease has TTL 0, which is no error.

        Renewals do not wait for one another: a client sends those of all its leases here.
        """
        if not self._replica.shared:
            await self._renew_at_once(call)
            return
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
                    _drop(renewal[1])

    async def _renew_at_once(self, call: Call) -> None:
        """Answer renewals that wait for nobody. Hot."""
        while (body := await call.recv()) is not None:
            lease = pb.LeaseKeepAliveRequest.FromString(body).ID
            if self._guard.enabled:
                await self._check_keys(call, (lease,), check_lease)
            answer = pb.LeaseKeepAliveResponse(ID=lease, TTL=self._expirer.renew(lease))
            await call.send(self._header() + answer.SerializeToString())

    async def _take_renewals(
        self,
        call: Call,
        under_way: asyncio.Queue[tuple[int, asyncio.Task[int]] | None],
        room: asyncio.Semaphore,
    ) -> None:
        try:
            while await room.acquire() and (body := await call.recv()) is not None:
                lease = pb.LeaseKeepAliveRequest.FromString(body).ID
                ttl = asyncio.create_task(self._renew(call, lease))
                under_way.put_nowait((lease, ttl))
        finally:
            under_way.put_nowait(None)

    async def _renew(self, call: Call, lease: int) -> int:
        if self._guard.enabled:
            await self._check_keys(call, (lease,), check_lease)
        return await self._expirer.keep_alive(lease)

    async def _check_keys(self, call: Call, leases: Iterable[int], check: LeaseCheck) -> None:
        """Refuse who may not do with all keys of leases what `check` says."""
        who = await self._guard.identify(call)
        store = self._replica.store
        store.auth.check_user(who)
        check(store.auth, who, (key for x in leases for key in store.leases.attached(x)))

    async def time_to_live(self, call: Call, body: bytes) -> bytes:
        """Tell how long a lease has left, and its keys where asked."""
        request = pb.LeaseTimeToLiveRequest.FromString(body)
        await self._guard.require_user(call)
        answer = pb.LeaseTimeToLiveResponse(ID=request.ID, TTL=_UNKNOWN)
        left = await self._expirer.remaining(request.ID)
        if request.keys and self._guard.enabled:
            await self._check_keys(call, (request.ID,), check_lease_read)
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
        if self._guard.enabled:
            await self._check_keys(call, self._replica.store.leases.ids(), check_lease_read)
        answer = pb.LeaseLeasesResponse(
            leases=[pb.LeaseStatus(ID=lease) for lease in self._replica.store.leases.ids()]
        )
        return self._header() + answer.SerializeToString()

    async def _submit(self, op: LeaseGrant | LeaseRevoke, caller: Caller, size: int) -> Result:
        return await self._writer.write(op, caller, size, self._now() + REQUEST_SECONDS)

    def _header(self) -> bytes:
        return self._headers.at(self._replica.store.revision)


def _drop(renewal: asyncio.Task[int]) -> None:
    """End a renewal that nobody will hear of, whether it has failed or goes on."""
    if renewal.done() and not renewal.cancelled():
        renewal.exception()
    renewal.cancel()
