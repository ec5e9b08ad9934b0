"""The quota: how large the database may grow before writes that add are refused.

As in etcd, a write that would pass it raises the NOSPACE alarm, which refuses every later one in
the engine until an administrator has made room and disarmed it. A disk that is nearly full has the
same answer, but no alarm: it is over as soon as there is space again.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Final

from datastore.shim.backends.api import Alarm, BackendError, Corrupt, Diverged, Size
from datastore.shim.errors import NoSpace, ShimError
from datastore.shim.mvcc.auth import SERVER
from datastore.shim.mvcc.ops import SetAlarm
from datastore.shim.replica import Replica
from datastore.shim.writer import Writer

log = logging.getLogger(__name__)

NOSPACE: Final = 1
MEASURE_SECONDS: Final = 2.0
SERVER_MEASURE_SECONDS: Final = 30.0
"""The same on a database server, which has to look at its tables for it."""


class Quota:
    """Keeps the size of the database known, and guards its limit.

    Args:
        limit: Bytes; 0 or less is none.
    """

    def __init__(self, replica: Replica, writer: Writer, member_id: int, limit: int) -> None:
        self.size = Size(0, 0)
        """As last measured."""
        self.limit = limit
        self._replica = replica
        self._writer = writer
        self._alarm = Alarm(member_id, NOSPACE)
        self._written = 0
        """Bytes of requests since the last measurement: an upper bound of the growth."""
        self._room = 0
        """What may be written until it has to be measured again."""
        self._is_disk_full = False

    def is_near(self, size: int) -> bool:
        """Return whether a write of `size` bytes may not fit; counts it. Hot."""
        self._written += size
        return self._written > self._room

    async def admit(self, size: int) -> None:
        """Refuse a write of `size` bytes if it would pass the limit, or fill the disk.

        Raises:
            NoSpace: it would; if it would pass the limit, the alarm is raised.
        """
        await self.measure()
        if 0 < self.limit < self.size.total + size:
            await self._raise_alarm()
            raise NoSpace
        if self._is_disk_full or self._room < size:
            raise NoSpace

    async def _raise_alarm(self) -> None:
        if self._alarm not in self._replica.store.alarms:
            log.error("the database would grow above its quota", extra={"quota": self.limit})
            await self._writer.write(SetAlarm(self._alarm, active=True), SERVER, 0)

    async def measure(self) -> None:
        """Look how large the database is. Raises Unavailable."""
        self._written = 0
        self.size = size = await self._replica.lanes.chores(self._replica.backend.size)
        room = self.limit - size.total if self.limit > 0 else sys.maxsize
        self._room = room if size.spare is None else min(room, size.spare)
        self._tell(is_full=size.spare is not None and size.spare <= 0)

    @property
    def is_disk_full(self) -> bool:
        """Whether writes that add are refused because the disk is nearly full."""
        return self._is_disk_full

    def _tell(self, *, is_full: bool) -> None:
        if is_full and not self._is_disk_full:
            log.error("the disk is nearly full: writes that add are refused until there is space")
        elif self._is_disk_full and not is_full:
            log.info("the disk has space again")
        self._is_disk_full = is_full

    async def run(self) -> None:
        """Keep the size known, for ever; so a file that was replaced is noticed as well."""
        while True:
            try:
                self._replica.check_reachable()
                await self.measure()
            except (Corrupt, Diverged) as error:
                self._replica.health.fail(str(error))
            except (BackendError, ShimError) as error:
                if self._replica.health.serving:
                    log.warning("the database's size is not known", extra={"reason": str(error)})
            shared = self._replica.shared
            await asyncio.sleep(SERVER_MEASURE_SECONDS if shared else MEASURE_SECONDS)
