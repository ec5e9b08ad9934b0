"""What the backends of database servers do alike.

Each has its own way to open, to append, to take turns, and to read many rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from datastore.dsn.target import Target
from datastore.shim.backends.api import (
    Alarm,
    AuthState,
    Closeable,
    Commit,
    Diverged,
    Head,
    Lease,
    Member,
    Moved,
    NotReady,
    Page,
    RowId,
    Size,
    Tail,
    Unavailable,
)
from datastore.shim.backends.limits import SCHEMA_VERSION
from datastore.shim.backends.stats import Stats


class Reads(Protocol):
    """Most reads of `Backend`."""

    def head(self) -> Head: ...
    def commit(self, change: int) -> Commit | None: ...
    def tail(self, position: Commit, limit: int) -> Tail: ...
    def history(self, first: int, last: int, limit: int) -> Page: ...
    def leases(self) -> list[Lease]: ...
    def auth(self) -> AuthState: ...
    def alarms(self) -> list[Alarm]: ...


class Upkeep(Protocol):
    """Leases, members, pruning and size, as `Backend` has them."""

    def keep_alive(self, ids: Sequence[int]) -> set[int]: ...
    def expire(self, limit: int) -> list[int]: ...
    def promote(self) -> None: ...
    def heartbeat(self, me: Member) -> list[Member]: ...
    def prune(self, pruned: int, ids: Sequence[RowId]) -> None: ...
    def size(self) -> Size: ...
    def defragment(self) -> None: ...


class Connections(Protocol):
    """What there is while a store is open."""

    @property
    def reads(self) -> Reads: ...
    @property
    def upkeep(self) -> Upkeep: ...
    def close(self) -> None:
        """Close everything, waiting for calls under way."""


C = TypeVar("C", bound=Connections)


class SqlBackend(Generic[C]):
    """One server's access to a store that others share."""

    shared = True
    inline = False

    def __init__(self, target: Target) -> None:
        self.stats = Stats()
        self._target = target
        self._connections: C | None = None

    # -- life ---------------------------------------------------------------------------------

    def _open(self, connect: Callable[[], C], begin: Callable[[C], Head]) -> Head:
        """Connect and begin; what fails leaves nothing open."""
        if self._connections is not None:
            raise NotReady(f"{self._target.place} is open already")
        connections = connect()
        try:
            head = begin(connections)
        except Unavailable as error:
            connections.close()
            raise NotReady(str(error)) from error
        except BaseException:
            connections.close()
            raise
        self._connections = connections
        return head

    def close(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()

    def _use(self) -> C:
        if self._connections is None:
            raise Unavailable("the store is closed")
        return self._connections

    def _moved(self, use: C) -> Moved:
        """Return the head that another server moved, if this version may go on."""
        head = use.reads.head()
        if head.schema_version != SCHEMA_VERSION:
            raise Diverged(
                f"the store was changed to schema {head.schema_version} by another byre, and "
                f"this one knows {SCHEMA_VERSION}: start that version here"
            )
        return Moved(head)

    # -- reads --------------------------------------------------------------------------------

    def head(self) -> Head:
        return self._use().reads.head()

    def commit(self, change: int) -> Commit | None:
        return self._use().reads.commit(change)

    def tail(self, position: Commit, limit: int) -> Tail:
        return self._use().reads.tail(position, limit)

    def history(self, first: int, last: int, limit: int) -> Page:
        return self._use().reads.history(first, last, limit)

    def auth(self) -> AuthState:
        return self._use().reads.auth()

    def alarms(self) -> Sequence[Alarm]:
        return self._use().reads.alarms()

    # -- leases and members -------------------------------------------------------------------

    def leases(self) -> Sequence[Lease]:
        return self._use().reads.leases()

    def keep_alive(self, ids: Sequence[int]) -> set[int]:
        return self._use().upkeep.keep_alive(ids)

    def expire(self, limit: int) -> Sequence[int]:
        return self._use().upkeep.expire(limit)

    def promote(self) -> None:
        self._use().upkeep.promote()

    def heartbeat(self, me: Member) -> Sequence[Member]:
        return self._use().upkeep.heartbeat(me)

    def listen(self, wake: Callable[[], None]) -> Closeable | None:
        """Return None where there is nothing to listen to, so that others poll."""
        self._use()
        return None

    # -- upkeep -------------------------------------------------------------------------------

    def prune(self, pruned: int, ids: Sequence[RowId]) -> None:
        self._use().upkeep.prune(pruned, ids)

    def size(self) -> Size:
        return self._use().upkeep.size()

    def defragment(self) -> None:
        self._use().upkeep.defragment()
