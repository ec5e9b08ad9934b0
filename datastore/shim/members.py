"""The servers of one database: who lives, and what they still read.

Each server writes a heartbeat with its client URLs and its *horizon*, the oldest revision that it
still reads from the log. Whoever is not heard of for a while is gone (by the database's clock);
nobody joins or leaves. Pruning stays behind the smallest horizon (log.md A4).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from datastore.shim.backends.api import BackendError, Member
from datastore.shim.errors import NoLeader
from datastore.shim.replica import Replica

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 2.0
"""A fifth of the time after which a server counts as gone (backends.limits)."""


class Members:
    """This server among the others.

    Args:
        replica: Its copy of the log.
        me: What to tell of it; the horizon is filled in.
        reads: Returns the oldest revision that its watchers read, None where there are none.
    """

    def __init__(self, replica: Replica, me: Member, reads: Callable[[], int | None]) -> None:
        self.live: Sequence[Member] = (me,)
        """Who was alive at the last heartbeat."""
        self.me = me
        self._replica = replica
        self._reads = reads

    @property
    def alone(self) -> bool:
        """Whether no other server was alive at the last heartbeat."""
        return all(member.id == self.me.id for member in self.live)

    @property
    def first(self) -> int:
        """The id of the first member: what stands for etcd's leader."""
        return self.live[0].id if self.live else self.me.id

    async def beat(self) -> Sequence[Member]:
        """Say that this server lives, and return who does, by id.

        Raises:
            NoLeader: The database cannot be reached.
        """
        replica = self._replica
        replica.check_reachable()
        reads = self._reads()
        position = replica.store.revision
        needed = (position, reads, replica.holds.oldest)
        me = self.me._replace(horizon=min(each for each in needed if each is not None))
        try:
            live = await replica.lanes.upkeep(replica.backend.heartbeat, me)
        except BackendError as error:
            raise NoLeader(str(error)) from error
        self.live = live if any(member.id == me.id for member in live) else (*live, me)
        return self.live

    async def run(self) -> None:
        """Beat for ever."""
        if not self._replica.shared:
            return
        while True:
            try:
                await self.beat()
            except NoLeader as error:
                if self._replica.health.serving:
                    log.warning("the other servers do not hear of this one: %s", error)
            await asyncio.sleep(HEARTBEAT_SECONDS)
