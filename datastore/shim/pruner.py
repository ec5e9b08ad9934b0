"""Take away what compaction has made unreachable, behind everybody who may still read it.

Compaction is logical and immediate (mvcc). Rows go later: on a shared database after a grace and
not above the oldest revision that a live server still reads (log.md A4); where nobody else reads
the log, at once. `pruned` rises before the first row goes, so every reader can tell.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from datastore.shim.backends.api import BackendError, RowId
from datastore.shim.errors import NoLeader
from datastore.shim.members import Members
from datastore.shim.replica import Replica

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 1.0
GRACE_SECONDS = 60.0
OTHERS_SECONDS = 30.0
"""The first member prunes; the others do so much later what is still left then."""
HORIZON_SECONDS = 0.5
CHUNK_ROWS = 2000


class Pruner:
    """Deletes garbage rows in the background."""

    def __init__(
        self, replica: Replica, members: Members, *, grace_seconds: float | None = None
    ) -> None:
        self._replica = replica
        self._members = members
        if grace_seconds is None:
            grace_seconds = GRACE_SECONDS if replica.shared else 0.0
        self._grace = grace_seconds
        self._compactions: deque[tuple[float, int]] = deque()
        self._seen = self._due = self._pruned = -1
        self._rows: list[RowId] = []  # taken from the store and still to be deleted
        self._busy = asyncio.Lock()

    async def run(self) -> None:
        """Prune for ever."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self._tick()
            except (BackendError, NoLeader) as error:
                if self._replica.health.serving:
                    log.warning("old revisions cannot be pruned now: %s", error)

    async def physical(self) -> None:
        """Return when nothing below the compacted revision of this moment is left on disk.

        Raises:
            NoLeader: The database cannot be reached.
        """
        revision = self._replica.store.compacted
        while await self._horizon() < revision:  # noqa: ASYNC110 - it is in the database
            await asyncio.sleep(HORIZON_SECONDS)
        await self._prune(revision)

    async def _tick(self) -> None:
        self._replica.check_reachable()
        now = asyncio.get_running_loop().time()
        compacted = self._replica.store.compacted
        if compacted > self._seen:
            self._seen = compacted
            self._compactions.append((now, compacted))
        grace = self._grace
        if self._replica.shared and self._members.first != self._members.me.id:
            grace += OTHERS_SECONDS
        while self._compactions and self._compactions[0][0] + grace <= now:
            self._due = self._compactions.popleft()[1]
        if self._due > self._pruned:
            await self._prune(min(self._due, await self._horizon()))

    async def _horizon(self) -> int:
        """Return the oldest revision that a live server still reads from the log."""
        if not self._replica.shared:
            return self._replica.store.revision
        return min(member.horizon for member in await self._members.beat())

    async def _prune(self, revision: int) -> None:
        """Delete the garbage of all compactions up to `revision`."""
        replica = self._replica
        async with self._busy:
            await replica.holds.released()
            while replica.store.tidy():
                await asyncio.sleep(0)  # in steps: requests are answered between
                await replica.holds.released()
            rows = replica.store.collect(revision)
            if replica.shared and replica.head.pruned >= revision:
                rows = []  # another server has them; what it leaves is found at the next start
            self._rows += rows
            while self._rows:
                # In steps: keepalives and heartbeats go between.
                chunk = self._rows[:CHUNK_ROWS]
                await replica.lanes.chores(replica.backend.prune, revision, chunk)
                del self._rows[:CHUNK_ROWS]
            self._pruned = max(self._pruned, revision)
