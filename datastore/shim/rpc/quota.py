"""The quota: how large the database may grow before writes that add are refused.

As in etcd, a write that would pass it raises the NOSPACE alarm, which refuses every later one in
the engine until an administrator has made room and disarmed it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from datastore.shim.backends.api import Alarm, BackendError, Corrupt, Diverged, Size
from datastore.shim.errors import NoSpace, ShimError
from datastore.shim.mvcc.ops import Put, SetAlarms, Txn
from datastore.shim.replica import Replica
from datastore.shim.writer import Writer

log = logging.getLogger(__name__)

NOSPACE: Final = 1
MEASURE_SECONDS: Final = 2.0


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

    def is_near(self, size: int) -> bool:
        """Return whether a write of `size` bytes may pass the limit; counts it. Hot."""
        self._written += size
        return 0 < self.limit < self.size.total + self._written

    async def admit(self, size: int) -> None:
        """Refuse a write of `size` bytes if it would pass the limit.

        Raises:
            NoSpace: it would; the alarm is raised.
        """
        await self.measure()
        if self.size.total + size <= self.limit:
            return
        alarms = self._replica.store.alarms
        if self._alarm not in alarms:
            log.error("the database would grow above its quota", extra={"quota": self.limit})
            await self._writer.write(SetAlarms([*alarms, self._alarm]), 0)
        raise NoSpace

    async def measure(self) -> None:
        """Look how large the database is. Raises Unavailable."""
        self._written = 0
        self.size = await self._replica.lanes.upkeep(self._replica.backend.size)

    async def run(self) -> None:
        """Keep the size known, for ever; so a file that was replaced is noticed as well."""
        while True:
            try:
                await self.measure()
            except (Corrupt, Diverged) as error:
                self._replica.health.fail(str(error))
            except (BackendError, ShimError) as error:
                log.warning("the database's size is not known", extra={"reason": str(error)})
            await asyncio.sleep(MEASURE_SECONDS)


def has_put(txn: Txn) -> bool:
    """Return whether a transaction may put a key, on either branch."""
    return any(
        isinstance(op, Put) or (isinstance(op, Txn) and has_put(op))
        for op in (*txn.success, *txn.failure)
    )
