"""Leases in memory: which exist, which keys are attached, and when they end.

There is no clock here: callers say what the time is. A lease has no deadline, and so cannot
expire, until `renew` or `promote` gave it one: after a start all get their full TTL again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from datastore.shim.backends.api import Lease

NEVER = float("inf")


class LeaseInfo:
    """One lease. `expired` is final: the lease waits for its revocation only."""

    __slots__ = ("deadline", "entry", "expired", "id", "keys", "ttl")

    def __init__(self, id: int, ttl: int, *, expired: bool = False) -> None:  # noqa: A002
        self.id = id
        self.ttl = ttl
        self.expired = expired
        self.deadline = NEVER
        self.entry: tuple[float, int] | None = None  # its place in the lessor's queue
        self.keys: set[bytes] = set()

    def __repr__(self) -> str:
        return f"LeaseInfo({self.id:x}, ttl={self.ttl}, keys={len(self.keys)})"


class Lessor:
    """All leases of a store. Only `Store.apply` grants, drops, attaches and detaches."""

    def __init__(self, leases: Sequence[Lease] = ()) -> None:
        self._leases = {x.id: LeaseInfo(x.id, x.ttl, expired=x.expired) for x in leases}
        # One entry a lease that has a deadline; renewing does not touch it: an entry that turns
        # out to be too early is put back with the deadline of then.
        self._due: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, lease: int) -> bool:
        return lease in self._leases

    def ids(self) -> list[int]:
        """Return all leases, the first to expire first."""
        return sorted(self._leases, key=lambda lease: self._leases[lease].deadline)

    def ttl(self, lease: int) -> int:
        """Return the TTL of a known lease, in seconds."""
        return self._leases[lease].ttl

    def find(self, lease: int) -> LeaseInfo | None:
        """Return a lease, or None."""
        return self._leases.get(lease)

    def attached(self, lease: int) -> set[bytes]:
        """Return the keys of a lease; none where there is no such lease."""
        info = self._leases.get(lease)
        return set() if info is None else info.keys

    def grant(self, lease: int, ttl: int) -> None:
        """Add a lease, without a deadline so far."""
        self._leases[lease] = LeaseInfo(lease, ttl)

    def drop(self, lease: int) -> None:
        """Remove a lease; an unknown one is ignored."""
        self._leases.pop(lease, None)

    def attach(self, lease: int, key: bytes) -> None:
        """Tie a key to a lease; a lease that has gone since is ignored."""
        info = self._leases.get(lease)
        if info is not None:
            info.keys.add(key)

    def detach(self, lease: int, key: bytes) -> None:
        """Untie a key from a lease."""
        info = self._leases.get(lease)
        if info is not None:
            info.keys.discard(key)

    def renew(self, lease: int, now: float) -> int | None:
        """Give a lease its full TTL from `now` and return it; None: unknown or expired."""
        info = self._leases.get(lease)
        if info is None or info.expired or info.deadline <= now:
            return None
        info.deadline = now + info.ttl
        if info.entry is None:
            self._queue(info)
        return info.ttl

    def remaining(self, lease: int, now: float) -> float | None:
        """Return the seconds that a lease has left, at least 0; None: unknown."""
        info = self._leases.get(lease)
        if info is None:
            return None
        if info.expired:
            return 0.0
        return float(info.ttl) if info.deadline == NEVER else max(0.0, info.deadline - now)

    def overdue(self, now: float, limit: int) -> list[int]:
        """Mark the leases whose deadline has passed, and return them, the oldest first.

        A lease is returned every time until it is dropped.
        """
        found: list[LeaseInfo] = []
        due = self._due
        while due and due[0][0] <= now and len(found) < limit:
            entry = heappop(due)
            info = self._leases.get(entry[1])
            if info is None or info.entry is not entry:
                continue  # dropped; one granted under the same id since has its own entry
            if info.deadline > entry[0] and not info.expired:
                self._queue(info)
                continue
            info.expired = True
            found.append(info)
        for info in found:
            self._queue(info)
        return [info.id for info in found]

    def mark_expired(self, leases: Iterable[int]) -> None:
        """Note that leases have expired by the database's clock."""
        for lease in leases:
            if (info := self._leases.get(lease)) is not None:
                info.expired = True

    def promote(self, now: float) -> None:
        """Give every lease that has not expired at least its full TTL from `now`.

        To be called after a start and after any gap, before `overdue`.
        """
        self._due.clear()
        for info in self._leases.values():
            if info.expired:
                info.deadline = min(info.deadline, now)
            elif info.deadline == NEVER or info.deadline < now + info.ttl:
                info.deadline = now + info.ttl
            self._queue(info)

    def _queue(self, info: LeaseInfo) -> None:
        info.entry = (info.deadline, info.id)
        heappush(self._due, info.entry)
