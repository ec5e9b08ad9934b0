"""The durable state behind the memory backend: commits, rows, leases and the rest."""

from __future__ import annotations

import secrets
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from datastore.shim.backends.api import (
    PAGE_BYTES,
    Alarm,
    AuthState,
    Batch,
    Commit,
    Diverged,
    Head,
    Kinds,
    Lease,
    Member,
    Moved,
    Page,
    Row,
    RowId,
    Size,
    Tail,
    Values,
    cut_values,
    to_revision,
    to_row_id,
)
from datastore.shim.backends.limits import (
    COMMITS_KEPT,
    FIRST_REVISION,
    MEMBER_SECONDS,
    NO_BATCH,
    SCHEMA_VERSION,
)


@dataclass(frozen=True, slots=True)
class StoredLease:
    """A lease with its deadline by the log's clock."""

    ttl: int
    deadline: float
    expired: bool = False


class Undo(NamedTuple):
    """What a commit replaced, kept so that a lost tail can be taken back."""

    head: Head
    rows: Sequence[RowId]
    leases: Sequence[tuple[int, StoredLease | None]]
    auth: AuthState
    alarms: tuple[Alarm, ...]


class Log:
    """A compare-and-append log in memory; see memory.py for what tests may do to it."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        cluster_id: int | None = None,
        commits_kept: int = COMMITS_KEPT,
    ) -> None:
        """Make an empty log.

        Args:
            clock: The database's clock, in seconds; leases and members live by it.
            cluster_id: Chosen at random where None.
            commits_kept: Commit rows that pruning leaves.
        """
        self.clock = clock
        self.lock = threading.RLock()
        self.turn_lock = threading.Lock()
        self.owner: object | None = None
        self.listeners: list[tuple[object, Callable[[], None]]] = []
        self.commits_kept = commits_kept
        identity = secrets.randbits(64) if cluster_id is None else cluster_id
        self.head = Head(0, FIRST_REVISION, -1, -1, identity, SCHEMA_VERSION)
        self.commits = {0: Commit(0, FIRST_REVISION, NO_BATCH, Kinds.NONE)}
        self.rows: dict[RowId, Row] = {}
        self.leases: dict[int, StoredLease] = {}
        self.members: dict[int, tuple[Member, float]] = {}
        self.auth = AuthState({})
        self.alarms: tuple[Alarm, ...] = ()
        self.zombies: list[Batch] = []
        self._ids: list[RowId] = []  # of `rows`, ascending
        self._undo: deque[Undo] = deque(maxlen=commits_kept)
        self._in_use = 0
        self._total = 0

    @property
    def turn_held(self) -> bool:
        """Whether somebody has the turn lock."""
        return self.turn_lock.locked()

    def append(self, batch: Batch) -> Head | Moved:
        """Commit `batch` if it was evaluated at the head; no faults."""
        with self.lock:
            if batch.expected != self.head.change:
                return Moved(self.head)
            if batch.base not in {None, self.commits[batch.expected].batch}:
                return Moved(self.head)
            self._check(batch)
            touched = [*(lease for lease, _ in batch.granted), *batch.dropped]
            self._undo.append(
                Undo(
                    self.head,
                    [row.meta.id for row in batch.rows],
                    [(lease, self.leases.get(lease)) for lease in touched],
                    self.auth,
                    self.alarms,
                )
            )
            self._commit(batch)
            return self.head

    def _check(self, batch: Batch) -> None:
        """Refuse what no server may write, so that a test names the culprit."""
        last = to_row_id(self.head.revision + 1, 0) - 1
        for row in batch.rows:
            if row.meta.id <= last or (row.value is None) != row.meta.tombstone:
                raise ValueError(f"row out of order or malformed: {row.meta}")
            last = row.meta.id
        if batch.revision < self.head.revision or to_revision(last) > batch.revision:
            raise ValueError(f"revision {batch.revision} does not cover the rows of the batch")

    def _commit(self, batch: Batch) -> None:
        head = self.head
        self.head = head._replace(
            change=head.change + 1,
            revision=batch.revision,
            compacted=head.compacted if batch.compacted is None else batch.compacted,
        )
        self.commits[head.change + 1] = Commit(
            head.change + 1, batch.revision, batch.batch, batch.kinds
        )
        for row in batch.rows:
            self._ids.append(row.meta.id)
            self.rows[row.meta.id] = row
            self._in_use += _weigh(row)
        now = self.clock()
        for lease in batch.dropped:
            self.leases.pop(lease, None)
        for lease, ttl in batch.granted:
            self.leases[lease] = StoredLease(ttl, now + ttl)
        if batch.auth is not None:
            self.auth = batch.auth
        if batch.alarms is not None:
            self.alarms = tuple(batch.alarms)
        self._total = max(self._total, self._in_use)

    def interlope(self) -> Head:
        """Commit an empty batch of somebody else."""
        with self.lock:
            head = self.head
            outcome = self.append(
                Batch(secrets.token_bytes(16), head.change, head.revision, Kinds.NONE)
            )
            return outcome.head if isinstance(outcome, Moved) else outcome

    def release_zombies(self) -> int:
        """Let every zombie try to commit now; return how many did."""
        with self.lock:
            zombies, self.zombies = self.zombies, []
            return sum(not isinstance(self.append(zombie), Moved) for zombie in zombies)

    def kill_zombies(self) -> None:
        """End the zombies' sessions: they are never applied."""
        with self.lock:
            self.zombies.clear()

    def lose_tail(self, change: int) -> None:
        """Go back to `change`, as if a replica that had only that far was promoted.

        What pruning deleted stays deleted, so `change` must not be older than the last prune.
        """
        with self.lock:
            while self.head.change > change:
                undo = self._undo.pop()
                del self.commits[self.head.change]
                self._remove(undo.rows)
                for lease, before in undo.leases:
                    if before is None:
                        self.leases.pop(lease, None)
                    else:
                        self.leases[lease] = before
                self.auth, self.alarms = undo.auth, undo.alarms
                self.head = undo.head._replace(pruned=self.head.pruned)
            if self.head.pruned > self.head.compacted:
                raise ValueError(f"change {change} is older than the last prune")

    def prune(self, pruned: int, ids: Sequence[RowId]) -> None:
        """Raise `pruned`, delete these rows, and commit rows beyond those always kept."""
        with self.lock:
            self.raise_pruned(pruned)
            self._remove(ids)
            for change in range(min(self.commits), self.head.change + 1 - self.commits_kept):
                del self.commits[change]

    def raise_pruned(self, pruned: int) -> None:
        """Raise `head.pruned` only: the first of the two steps of a prune."""
        with self.lock:
            if pruned > self.head.compacted:
                raise ValueError(f"cannot prune {pruned} above compacted {self.head.compacted}")
            self.head = self.head._replace(pruned=max(pruned, self.head.pruned))

    def _remove(self, ids: Sequence[RowId]) -> None:
        gone = [row for row in (self.rows.pop(row_id, None) for row_id in ids) if row]
        self._in_use -= sum(map(_weigh, gone))
        if gone:
            self._ids = [row_id for row_id in self._ids if row_id in self.rows]

    def tail(self, position: Commit, limit: int) -> Tail:
        """Return the commits after `position`; see `Backend.tail`."""
        with self.lock:
            self._verify(position)
            commits: list[Commit] = []
            rows: list[Row] = []
            after = to_row_id(position.revision + 1, 0)
            first = max(position.change + 1, min(self.commits))
            for change in range(first, self.head.change + 1):
                commit = self.commits[change]
                until = to_row_id(commit.revision + 1, 0)
                rows += self._between(after, until)
                commits.append(commit)
                after = until
                if max(len(rows), len(commits)) >= limit:
                    break
            return Tail(self.head, commits, rows)

    def _verify(self, position: Commit) -> None:
        if position.change > self.head.change:
            raise Diverged(f"the log ends at {self.head.change}, before {position.change}")
        stored = self.commits.get(position.change)
        if stored is None and position.change < min(self.commits):
            return
        if stored is None or stored.batch != position.batch:
            raise Diverged(f"commit {position.change} is another one than this server applied")

    def history(self, first: int, last: int, limit: int) -> Page:
        """Return a page of rows; see `Backend.history`."""
        with self.lock:
            ids = self._ids
            start = bisect_left(ids, to_row_id(first, 0))
            stop = bisect_left(ids, to_row_id(last + 1, 0))
            rows: list[Row] = []
            size = 0
            for row_id in ids[start:stop]:
                if (len(rows) >= max(limit, 1) or size >= PAGE_BYTES) and (
                    to_revision(row_id) != to_revision(rows[-1].meta.id)
                ):
                    return Page(self.head.pruned, rows, more=True)
                row = self.rows[row_id]
                rows.append(row)
                size += len(row.meta.key) + len(row.value or b"")
            return Page(self.head.pruned, rows, more=False)

    def _between(self, start: RowId, stop: RowId) -> list[Row]:
        low, high = bisect_left(self._ids, start), bisect_left(self._ids, stop)
        return [self.rows[row_id] for row_id in self._ids[low:high]]

    def all_rows(self) -> list[Row]:
        """Return every row, ascending."""
        with self.lock:
            return [self.rows[row_id] for row_id in self._ids]

    def values(self, ids: Sequence[RowId]) -> Values:
        """Return a page of values; see `Backend.values`."""
        with self.lock:
            rows = ((row_id, self.rows.get(row_id)) for row_id in ids)
            found = {i: row.value for i, row in rows if row and row.value is not None}
            return cut_values(self.head.pruned, found, ids)

    def list_leases(self, *, timed: bool) -> list[Lease]:
        """Return all leases by id; without deadlines where not `timed`."""
        with self.lock:
            now = self.clock()
            return [
                Lease(lease, held.ttl, held.deadline - now if timed else None, held.expired)
                for lease, held in sorted(self.leases.items())
            ]

    def keep_alive(self, ids: Sequence[int]) -> set[int]:
        """Renew those that are neither marked nor overdue; return them."""
        with self.lock:
            now = self.clock()
            live = {
                i for i in ids if (h := self.leases.get(i)) and not h.expired and h.deadline > now
            }
            for lease in live:
                held = self.leases[lease]
                self.leases[lease] = replace(held, deadline=now + held.ttl)
            return live

    def expire(self, limit: int) -> list[int]:
        """Mark up to `limit` overdue leases; return all that are marked."""
        with self.lock:
            now = self.clock()
            overdue = sorted(
                (held.deadline, lease)
                for lease, held in self.leases.items()
                if not held.expired and held.deadline <= now
            )
            for _, lease in overdue[:limit]:
                self.leases[lease] = replace(self.leases[lease], expired=True)
            return sorted(lease for lease, held in self.leases.items() if held.expired)

    def promote(self) -> None:
        """Extend every deadline to at least now + ttl; marks stay."""
        with self.lock:
            now = self.clock()
            for lease, held in self.leases.items():
                deadline = max(held.deadline, now + held.ttl)
                self.leases[lease] = replace(held, deadline=deadline)

    def heartbeat(self, me: Member) -> list[Member]:
        """Note `me`; return the members seen lately, by id."""
        with self.lock:
            now = self.clock()
            self.members[me.id] = (me, now)
            return [
                member
                for _, (member, seen) in sorted(self.members.items())
                if now - seen < MEMBER_SECONDS
            ]

    def size(self) -> Size:
        """Return bytes of keys and values: the most there were, and those there are."""
        with self.lock:
            return Size(self._total, self._in_use)

    def defragment(self) -> None:
        """Give the bytes of deleted rows back."""
        with self.lock:
            self._total = self._in_use


def _weigh(row: Row) -> int:
    return len(row.meta.key) + len(row.value or b"")
