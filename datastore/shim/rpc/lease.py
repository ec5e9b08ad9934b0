"""etcdserverpb.Lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.errors import LeaseTtlTooLarge, ShimError
from datastore.shim.expirer import Expirer
from datastore.shim.mvcc.auth import ANONYMOUS, Auth, Identity
from datastore.shim.mvcc.leases import Lessor
from datastore.shim.mvcc.ops import LeaseGrant, LeaseRevoke, Result
from datastore.shim.mvcc.permits import check_lease, check_lease_read
from datastore.shim.replica import Replica
from datastore.shim.rpc.kv import REQUEST_SECONDS
from datastore.shim.rpc.quota import Quota
from datastore.shim.rpc.service import Desk, to_refusal
from datastore.shim.transport.api import Call, Later
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
        self._ids = LeaseIds(desk.headers.member_id, time.time())
        self._now = asyncio.get_running_loop().time
        desk.unary("/etcdserverpb.Lease/LeaseGrant", self.grant)
        desk.unary("/etcdserverpb.Lease/LeaseRevoke", self.revoke)
        desk.stream("/etcdserverpb.Lease/LeaseKeepAlive", self.keep_alive)
        desk.unary("/etcdserverpb.Lease/LeaseTimeToLive", self.time_to_live)
        desk.unary("/etcdserverpb.Lease/LeaseLeases", self.leases)

    def grant(self, call: Call, body: bytes) -> Later | Awaitable[bytes]:
        """Grant a lease; an id of 0 lets the server choose. Hot."""
        request = pb.LeaseGrantRequest.FromString(body)
        size = len(body)
        if self._quota.is_near(size) or self._guard.enabled:
            return self._grant_checked(call, request, size)
        return self._grant(request, size)

    async def _grant_checked(self, call: Call, request: pb.LeaseGrantRequest, size: int) -> bytes:
        """Grant within the quota, to whoever is somebody."""
        if self._quota.is_near(size):
            await self._quota.admit(size)
        await self._guard.require_user(call)
        return await self._grant(request, size).wait()

    def _grant(self, request: pb.LeaseGrantRequest, size: int) -> Later:
        """Queue a grant, to be answered when its batch is durable: no task, no future. Hot."""
        if request.TTL > MAX_TTL_SECONDS:
            raise LeaseTtlTooLarge
        ttl = max(request.TTL, self._min_ttl)
        lease = request.ID or self._ids.choose(self._replica.store.leases)
        later = Later()

        def take(result: Result | None, error: ShimError | None) -> None:
            if result is not None:
                answer = pb.LeaseGrantResponse(ID=lease, TTL=ttl)
                later.answer(self._headers.at(result.revision) + answer.SerializeToString())
            elif error is not None:
                later.refuse(to_refusal(error))

        op, deadline = LeaseGrant(lease, ttl), self._now() + REQUEST_SECONDS
        later.on_abandon = self._writer.submit(op, ANONYMOUS, size, take, deadline).abandon
        return later

    async def revoke(self, call: Call, body: bytes) -> bytes:
        """End a lease and delete its keys."""
        request = pb.LeaseRevokeRequest.FromString(body)
        await self._guard.require_user(call)
        op, size = LeaseRevoke(request.ID), len(body)
        deadline = self._now() + REQUEST_SECONDS
        result = await self._guard.act(
            call, lambda caller: self._writer.write(op, caller, size, deadline)
        )
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
                encoded = _encode_renewal(lease, await ttl)
                await call.send(self._header() + encoded)
                room.release()
            await reading
        finally:
            reading.cancel()
            while not under_way.empty():
                if (renewal := under_way.get_nowait()) is not None:
                    _drop(renewal[1])

    async def _renew_at_once(self, call: Call) -> None:
        """Answer renewals that wait for nobody, but with auth on for who calls to be found out."""
        while (body := await call.exchange(self._answer_renewal)) is not None:
            lease = pb.LeaseKeepAliveRequest.FromString(body).ID
            encoded = _encode_renewal(lease, await self._renew(call, lease))
            await call.send(self._header() + encoded)

    def _answer_renewal(self, body: bytes) -> bytes | None:
        """Renew at once while auth is off (transport.api.Answer). Hot."""
        if self._guard.enabled:
            return None
        try:
            lease = pb.LeaseKeepAliveRequest.FromString(body).ID
        except DecodeError:
            return None
        return self._header() + _encode_renewal(lease, self._expirer.renew(lease))

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

    def _header(self) -> bytes:
        return self._headers.at(self._replica.store.revision)


class LeaseIds:
    """Chooses ids in ascending order: leases granted together are neighbours in the database.

    Fifteen bits tell servers of one database apart. The others begin with the time and have room
    for 2^8 grants a millisecond, so that a server goes on behind the ids of its earlier life.
    """

    def __init__(self, member_id: int, now: float) -> None:
        self._last = (member_id & 0x7FFF) << 48 | (int(now * 1000) << 8) & ((1 << 48) - 1)

    def choose(self, taken: Lessor) -> int:
        """Return a positive id that is not `taken`. Hot."""
        self._last += 1
        while self._last in taken:
            self._last += 1
        return self._last


@lru_cache(maxsize=4096)
def _encode_renewal(lease: int, ttl: int) -> bytes:
    """Return what a renewal is answered behind the header; clients ask again and again. Hot."""
    return pb.LeaseKeepAliveResponse(ID=lease, TTL=ttl).SerializeToString()


def _drop(renewal: asyncio.Task[int]) -> None:
    """End a renewal that nobody will hear of, whether it has failed or goes on."""
    if renewal.done() and not renewal.cancelled():
        renewal.exception()
    renewal.cancel()
