"""Follow the commits of other servers, and find out when a database that was away is back."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from datastore.shim.backends.api import BackendError, Closeable
from datastore.shim.errors import CorruptStore, NoLeader
from datastore.shim.replica import Replica

POLL_SECONDS: Final = 0.05
"""Between two looks at the log without a hint: the most by which others' commits are late."""
BUSY_POLL_SECONDS: Final = 0.01
"""The same while others have committed within `CONTENTION_SECONDS`."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0


async def follow(replica: Replica) -> None:
    """Apply foreign commits for ever, woken by the backend's hint or by a poll."""
    if not replica.shared:
        return
    hint = await _listen(replica)
    pause = 0.0
    try:
        while True:
            await _rest(replica, pause or _poll_seconds(replica, hinted=hint is not None))
            try:
                await replica.catch_up()
            except (NoLeader, CorruptStore):
                grown = min(max(2 * pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)
                pause = grown * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            else:
                pause = 0.0
    finally:
        if hint is not None:
            hint.close()


async def _listen(replica: Replica) -> Closeable | None:
    loop = asyncio.get_running_loop()

    def wake() -> None:
        loop.call_soon_threadsafe(replica.wake.set)

    try:
        return await replica.lanes.upkeep(replica.backend.listen, wake)
    except BackendError:
        return None  # hints are an economy


def _poll_seconds(replica: Replica, *, hinted: bool) -> float:
    return BUSY_POLL_SECONDS if replica.contended and not hinted else POLL_SECONDS


async def _rest(replica: Replica, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await replica.wake.wait()
    except TimeoutError:
        return
    replica.wake.clear()
