"""Leases over time: who keeps them alive, and what ends them.

A lease never ends early. Where this server is alone, deadlines live in memory: the full TTL again
after a restart follows by itself. On a shared database the database's clock decides: an overdue
lease is first marked, then revoked by an append, and a keepalive that comes after the mark finds
no lease (log.md A5). After any gap in which clients may have been unable to renew (the process
was stopped, the database was away) every deadline is moved to a full TTL from now: etcd's promote.
"""

from __future__ import annotations

import asyncio
import logging

from datastore.shim.backends.api import BackendError
from datastore.shim.errors import LeaseNotFound, NoLeader, ShimError
from datastore.shim.health import State
from datastore.shim.mvcc.auth import SERVER
from datastore.shim.mvcc.ops import LeaseRevoke
from datastore.shim.replica import Replica
from datastore.shim.writer import Writer

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.5
"""etcd's: so expiry is late by up to this, which etcd's clients know."""
PER_TICK = 500
GAP_SECONDS = 2.0
RENEW_SECONDS = 0.1
"""Between two statements that renew on a shared database: what comes meanwhile is gathered."""


class Expirer:
    """Renews leases and revokes overdue ones."""

    def __init__(self, replica: Replica, writer: Writer) -> None:
        self._replica = replica
        self._writer = writer
        self._now = asyncio.get_running_loop().time
        self._last = float("-inf")
        self._renewals: dict[int, asyncio.Future[bool]] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._renewed_at = float("-inf")
        replica.health.on_change(self._health_changed)

    async def run(self) -> None:
        """Revoke overdue leases for ever."""
        while True:
            try:
                await self._tick()
            except (ShimError, BackendError) as error:
                # A gap: nothing is ended before everybody had time to renew.
                self._last = float("-inf")
                if self._replica.health.serving:
                    log.warning("leases cannot be expired now: %s", error)
            await asyncio.sleep(INTERVAL_SECONDS)

    async def keep_alive(self, lease: int) -> int:
        """Renew a lease; return its granted TTL in seconds, 0 where there is none any more.

        Raises:
            NoLeader: The database is away; whether the lease was renewed is unknown.
        """
        replica = self._replica
        if not replica.shared:
            return self.renew(lease)
        replica.check_reachable()
        if not await self._renew_shared(lease):
            return 0
        known = replica.store.leases.find(lease)
        if known is None:
            await replica.read_index()
            known = replica.store.leases.find(lease)
        return 0 if known is None else known.ttl

    def renew(self, lease: int) -> int:
        """As `keep_alive`, at once, where this server is alone. Hot."""
        now = self._now()
        leases = self._replica.store.leases
        if now - self._last > GAP_SECONDS:
            leases.promote(now)
            self._last = now
        return leases.renew(lease, now) or 0

    async def remaining(self, lease: int) -> int | None:
        """Return the whole seconds that a lease has left, None where there is no such lease."""
        replica = self._replica
        if not replica.shared:
            left = replica.store.leases.remaining(lease, self._now())
            return None if left is None else max(0, int(left))
        await replica.read_index()
        for stored in await replica.lanes.upkeep(replica.backend.leases):
            if stored.id == lease:
                return max(0, int(stored.remaining or 0))
        return None

    # -- inside ---------------------------------------------------------------------------

    async def _tick(self) -> None:
        self._replica.check_reachable()
        await self._promote_after_gap()
        revokes = [
            self._writer.write(LeaseRevoke(lease), SERVER, 0) for lease in await self._overdue()
        ]
        for outcome in await asyncio.gather(*revokes, return_exceptions=True):
            # Another server, or the client, may have been first.
            if isinstance(outcome, BaseException) and not isinstance(outcome, LeaseNotFound):
                raise outcome
        self._last = self._now()

    def _health_changed(self) -> None:
        if self._replica.health.state is State.AWAY:
            self._last = float("-inf")  # a gap, as `run` says

    async def _overdue(self) -> list[int]:
        replica = self._replica
        if replica.shared:
            return list(await replica.lanes.upkeep(replica.backend.expire, PER_TICK))
        return list(replica.store.leases.overdue(self._now(), PER_TICK))

    async def _promote_after_gap(self) -> None:
        """Give every lease a full TTL, if the expirer has not run for a while."""
        if self._now() - self._last <= GAP_SECONDS:
            return
        replica = self._replica
        if replica.shared:
            await replica.lanes.upkeep(replica.backend.promote)
        else:
            replica.store.leases.promote(self._now())
        self._last = self._now()

    async def _renew_shared(self, lease: int) -> bool:
        future = self._renewals.get(lease)
        if future is None:
            future = self._renewals[lease] = asyncio.get_running_loop().create_future()
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew_gathered())
        return await asyncio.shield(future)

    async def _renew_gathered(self) -> None:
        """Renew what has gathered in one statement; what comes meanwhile is the next one's."""
        while self._renewals:
            await asyncio.sleep(max(0.0, self._renewed_at + RENEW_SECONDS - self._now()))
            self._renewed_at = self._now()
            renewals, self._renewals = self._renewals, {}
            backend = self._replica.backend
            try:
                renewed = await self._replica.lanes.upkeep(backend.keep_alive, list(renewals))
            except BackendError as error:
                for future in renewals.values():
                    future.set_exception(NoLeader(str(error)))
                    future.exception()
                continue
            for lease, future in renewals.items():
                future.set_result(lease in renewed)
