"""Take away what compaction has made unreachable, behind everybody who may still read it.

Compaction is logical and immediate (mvcc). Rows go later: on a shared database after a grace and
not above the oldest revision that a live server still reads (log.md A4); where nobody else reads
the log, at once. `pruned` rises before the first row goes, so every reader can tell.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from datastore.shim.backends.api import BackendError, Member
from datastore.shim.replica import Replica

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
GRACE_SECONDS = 60.0


class Pruner:
    """Deletes garbage rows in the background."""

    def __init__(
        self, replica: Replica, me: Member, *, grace_seconds: float | None = None
    ) -> None:
        self._replica = replica
        self._me = me
        if grace_seconds is None:
            grace_seconds = GRACE_SECONDS if replica.shared else 0.0
        self._grace = grace_seconds
        self._compactions: deque[tuple[float, int]] = deque()
        self._seen = -1
        self._busy = asyncio.Lock()

    async def run(self) -> None:
        """Prune for ever."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self._tick()
            except BackendError as error:
                log.warning("old revisions cannot be pruned now: %s", error)

    async def physical(self) -> None:
        """Return when nothing below the compacted revision of this moment is left on disk."""
        await self._prune(self._replica.store.compacted)

    async def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        compacted = self._replica.store.compacted
        if compacted > self._seen:
            self._seen = compacted
            self._compactions.append((now, compacted))
        due = -1
        while self._compactions and self._compactions[0][0] + self._grace <= now:
            due = self._compactions.popleft()[1]
        if due >= 0:
            await self._prune(min(due, await self._horizon()))

    async def _horizon(self) -> int:
        """Return the oldest revision that a live server still reads from the log."""
        replica = self._replica
        mine = self._me._replace(horizon=replica.store.revision)
        members = await replica.lanes.upkeep(replica.backend.heartbeat, mine)
        return min((member.horizon for member in members), default=mine.horizon)

    async def _prune(self, revision: int) -> None:
        """Delete the garbage of all compactions up to `revision`."""
        async with self._busy:
            store = self._replica.store
            while store.tidy():  # noqa: ASYNC110 - in steps: requests are answered between
                await asyncio.sleep(0)
            rows = store.collect(revision)
            if rows:
                await self._replica.lanes.upkeep(self._replica.backend.prune, revision, rows)
