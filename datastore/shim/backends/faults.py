"""Faults that the memory backend can be told to have, named after what databases do.

A test hands a `Faults` to a `MemoryBackend`; the backend consults it at every operation. The base
class has none, so that a test overrides only what it is about. `Script` is the usual one: the
fates of the next appends, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum, auto

from datastore.shim.backends.api import Batch


class Fault(Enum):
    """What becomes of one operation."""

    UNAVAILABLE = auto()  # refused: not applied, and never will be
    FULL = auto()  # no space: not applied (append only)
    CORRUPT = auto()  # I/O failed for good: not applied
    LOST_APPLIED = auto()  # applied, but the reply is lost (append only)
    LOST_NOT_APPLIED = auto()  # the request was lost on its way; the caller cannot tell
    ZOMBIE = auto()  # outcome unknown now; applied at `Log.release_zombies` if it still fits
    OVERTAKEN = auto()  # another writer's empty commit goes in first, so it has moved
    DEADLOCK = auto()  # Moved, although nothing has: a database that asks for a retry


class Fence(Enum):
    """What happens to a zombie when a batch with the same `expected` queues behind it."""

    COMMITS = auto()  # the zombie held the lock and commits first: the batch has moved
    DIES = auto()  # the zombie's session is ended: the batch goes in
    OVERTAKEN = auto()  # the zombie had no lock yet: the batch goes in, the zombie never will
    BLOCKS = auto()  # the zombie still holds the lock: the batch's own outcome is unknown


class Faults:
    """No faults at all; the base of those that have some."""

    def append(self, batch: Batch) -> Fault | None:
        """Return what becomes of this append."""
        return None

    def sync(self) -> Fault | None:
        """Return what becomes of a deferred sync (CORRUPT or None)."""
        return None

    def fence(self, zombie: Batch, batch: Batch) -> Fence:
        """Return what becomes of `zombie`, at whose `expected` the `batch` now arrives."""
        return Fence.COMMITS

    def read(self, operation: str) -> Fault | None:
        """Return what becomes of a read or of upkeep (UNAVAILABLE, CORRUPT or None).

        `operation` is the protocol's method name. It is called before the snapshot is taken, so
        a test may change the log here, for example prune it between two pages of history.
        """
        return None

    def between_pages(self, operation: str) -> None:
        """Do something between two pages of one `load`, for example prune."""

    def hint(self) -> bool:
        """Whether the hint to another server arrives."""
        return True


class Script(Faults):
    """The fates of the next appends and fences in order; afterwards there are none."""

    def __init__(self, appends: Iterable[Fault | None] = (), fences: Iterable[Fence] = ()) -> None:
        self.appends = deque(appends)
        self.fences = deque(fences)

    def append(self, batch: Batch) -> Fault | None:
        return self.appends.popleft() if self.appends else None

    def fence(self, zombie: Batch, batch: Batch) -> Fence:
        return self.fences.popleft() if self.fences else Fence.COMMITS
