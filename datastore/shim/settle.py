"""The fate of a batch whose reply was lost, and the one place that decides it."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable

from datastore.shim.backends.api import (
    Appended,
    Batch,
    Diverged,
    Kinds,
    Moved,
    OutcomeUnknown,
    Unavailable,
)
from datastore.shim.replica import Replica

BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 2.0


class Forgotten(Exception):
    """The commit row that would decide a batch's fate was pruned."""


async def settle(
    replica: Replica, batch: Batch, undecided: Callable[[], None]
) -> Appended | Moved:
    """Decide the fate of a batch whose reply was lost; never guess.

    The row at ``expected + 1`` decides: ours = applied, another's = never applied, none =
    undecided. While there is none, an empty batch is appended at the same place: it waits
    behind a sleeping transaction of ours or keeps it from ever succeeding (log.md A1).

    Args:
        replica: Whose backend was given the batch. Nothing else is appended meanwhile.
        batch: The batch in doubt.
        undecided: Called after each attempt that decided nothing, the database being away.

    Raises:
        Forgotten: The row was pruned; only after hours.
        Diverged: The log is another history.
    """
    delay = BACKOFF_SECONDS
    while True:
        try:
            return await _look(replica, batch)
        except (Unavailable, OutcomeUnknown) as error:
            replica.suspect(str(error))
        undecided()
        await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        delay = min(delay * 2, MAX_BACKOFF_SECONDS)


async def _look(replica: Replica, batch: Batch) -> Appended | Moved:
    lane, backend = replica.lanes.append, replica.backend
    while True:
        decided = await _decided(replica, batch)
        if decided is not None:
            return decided
        head = await lane(backend.head)
        if head.change > batch.expected:
            # Committed between the two reads; only if the row is absent now was it pruned.
            decided = await _decided(replica, batch)
            if decided is None:
                raise Forgotten
            return decided
        if head.change < batch.expected:
            raise Diverged(
                f"the log stands at commit {head.change}, below {batch.expected} that this "
                "server has applied: the database has lost commits"
            )
        await _verify_base(replica, batch)
        fence = Batch(
            secrets.token_bytes(16), batch.expected, head.revision, Kinds.NONE, base=batch.base
        )
        fenced = await lane(backend.append, fence)
        if isinstance(fenced, Appended) and fenced.sync is not None:
            await lane(fenced.sync)


async def _verify_base(replica: Replica, batch: Batch) -> None:
    """Refuse to fence off a place in another history, which would become part of ours."""
    base = await replica.lanes.append(replica.backend.commit, batch.expected)
    if batch.base is not None and base is not None and base.batch != batch.base:
        raise Diverged(
            f"commit {batch.expected} is another one than this server has applied: the database "
            "has lost commits"
        )


async def _decided(replica: Replica, batch: Batch) -> Appended | Moved | None:
    """Return what the row that decides says; None while there is none."""
    lane, backend = replica.lanes.append, replica.backend
    commit = await lane(backend.commit, batch.expected + 1)
    if commit is None:
        return None
    head = await lane(backend.head)
    return Appended(head) if commit.batch == batch.batch else Moved(head)
