"""Accepting that a database has lost commits: the way out of a history that was refused.

The revision jumps far above everything that was ever served and is marked as compacted there. So
no number is used twice for different contents, and every client that still holds something of the
lost history is told that it is compacted and reads anew (log.md D2). Every server whose position
lies so far below knows by that alone that the loss was accepted.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import NamedTuple

from datastore.shim.backends.api import (
    Backend,
    Batch,
    Commit,
    Diverged,
    Head,
    Kinds,
    Moved,
    NotReady,
    OutcomeUnknown,
)
from datastore.shim.position import ACCEPTED_GAP, PositionFile


class Acceptance(NamedTuple):
    """What was accepted."""

    lost: bool
    """Whether this server's file speaks of commits that the log does not have."""
    before: int
    """The revision that the log was at."""
    after: int
    """The revision that it is at now, and compacted at."""


def accept_loss(backend: Backend, position_file: Path | None) -> Acceptance:
    """Make the log, as it is, the one to serve from now on.

    Args:
        backend: Not open; it is opened and closed. Other servers may be running.
        position_file: Where this server records what it has served; it is brought up to date.

    Raises:
        NotReady: The store cannot be opened, or belongs to another cluster.
        BackendError: It cannot be written; to be tried again.
    """
    file = PositionFile(position_file) if position_file else None
    try:
        head = backend.open()
        recorded = file.read() if file else None
        if recorded is not None and recorded.cluster_id != head.cluster_id:
            raise NotReady(
                f"the datastore is another cluster ({head.cluster_id:x}) than the one that this "
                f"server has served ({recorded.cluster_id:x}): that is more than a loss"
            )
        served = recorded.commit.revision if recorded else 0
        lost = recorded is not None and _is_lost(backend, recorded.commit)
        commit, before = _bump(backend, head, served)
        if file:
            file.write(head.cluster_id, commit)
    finally:
        backend.close()
    return Acceptance(lost, before, commit.revision)


def _is_lost(backend: Backend, served: Commit) -> bool:
    try:
        backend.tail(served, 1)
    except Diverged:
        return True
    return False


def _bump(backend: Backend, head: Head, served: int) -> tuple[Commit, int]:
    """Append the jump; whatever else is committed meanwhile comes before it."""
    while True:
        revision = max(head.revision, served) + ACCEPTED_GAP
        token = secrets.token_bytes(16)
        batch = Batch(token, head.change, revision, Kinds.COMPACT, compacted=revision)
        try:
            outcome = backend.append(batch)
        except OutcomeUnknown:
            # A second jump does no harm.
            head = backend.head()
            continue
        if isinstance(outcome, Moved):
            head = outcome.head
            continue
        if outcome.sync is not None:
            outcome.sync()
        return Commit(head.change + 1, revision, token, Kinds.COMPACT), head.revision
