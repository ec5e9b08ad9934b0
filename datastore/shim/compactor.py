"""Compacts the log from time to time, for clients that do not; kube-apiserver does it itself.

On a shared database the first member does it, as etcd's leader does; the others look on, so that
whoever becomes the first knows what is old. Two that both take themselves for the first do no
harm: the second finds the log compacted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from datastore.shim.errors import Compacted, ShimError
from datastore.shim.members import Members
from datastore.shim.mvcc.auth import SERVER
from datastore.shim.mvcc.ops import Compact
from datastore.shim.replica import Replica
from datastore.shim.retention import Retention, Window
from datastore.shim.writer import Writer

log = logging.getLogger(__name__)


class Clock(NamedTuple):
    """Time, in seconds."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Compactor:
    """Automatic compaction of one server.

    Args:
        replica: Its copy of the log.
        writer: Takes the compactions.
        members: Who serves the same database.
        retention: What is kept.
        clock: The time.
    """

    def __init__(
        self,
        replica: Replica,
        writer: Writer,
        members: Members,
        retention: Retention,
        clock: Clock | None = None,
    ) -> None:
        self._replica = replica
        self._writer = writer
        self._members = members
        self._retention = retention
        self._clock = clock or Clock()

    async def run(self) -> None:
        """Compact for ever."""
        clock, replica = self._clock, self._replica
        window = Window(self._retention, clock.now())
        while True:
            window.look(replica.store.revision)
            await clock.sleep(self._retention.step)
            if self._members.first != self._members.me.id:
                continue
            target = window.due(replica.store.revision, clock.now())
            if target and await self._compact(target):
                window.done(target, clock.now())

    async def _compact(self, revision: int) -> bool:
        """Return whether the log is compacted at `revision`; if not, the next step tries again."""
        try:
            await self._writer.write(Compact(revision), SERVER, 0)
        except Compacted:
            return True  # by a client, or by another server
        except ShimError as error:
            log.warning(
                "automatic compaction failed",
                extra={"revision": revision, "reason": str(error)},
            )
            return False
        log.info("compacted automatically", extra={"revision": revision})
        return True
