"""What every backend is: a durable, totally ordered log of commits with one write operation.

That operation is *append these rows if nothing was committed since I looked* (`Backend.append`).
Everything that etcd means is computed above it, by one piece of code that all databases share.

Every read is one snapshot. Methods are synchronous, may be called from any one thread at a time
per lane, and never retry inside. The rules behind the protocol are those of design.md section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import IntFlag
from typing import NamedTuple, Protocol

SUB_BITS = 20
"""A row's id is ``revision << SUB_BITS | sub``: one integer, ordered as etcd orders revisions."""

MAX_CHANGES = 1 << SUB_BITS
"""Changes that one revision can hold; more are refused before anything is written."""

PAGE_BYTES = 8 << 20
"""A page of rows ends with the first whole revision or commit, and one of values with the first
value, that reaches this."""

RowId = int


def to_row_id(revision: int, sub: int) -> RowId:
    """Return the id of the change number `sub` (from 0) of `revision`."""
    return revision << SUB_BITS | sub


def to_revision(row: RowId) -> int:
    """Return the main revision of a row id."""
    return row >> SUB_BITS


class Kinds(IntFlag):
    """What a commit touched, so that other servers know what to read again."""

    NONE = 0
    LOG = 1
    LEASE = 2
    AUTH = 4
    ALARM = 8
    COMPACT = 16


class Meta(NamedTuple):
    """One change of one key, without its value. A tombstone has version and create revision 0."""

    id: RowId
    create_revision: int
    version: int
    lease: int
    key: bytes

    @property
    def tombstone(self) -> bool:
        """Whether the change deleted the key."""
        return self.version == 0


class Row(NamedTuple):
    """One change of one key as it is stored; `value` is None for a tombstone."""

    meta: Meta
    value: bytes | None


class Head(NamedTuple):
    """Where the log stands."""

    change: int  # commits so far; grows by exactly one
    revision: int  # etcd's current revision; 1 when empty
    compacted: int  # logical compaction, -1 before the first
    pruned: int  # rows needed only below this revision may be gone; -1 before the first
    cluster_id: int
    schema_version: int


class Commit(NamedTuple):
    """The row that decides for ever what commit number `change` was."""

    change: int
    revision: int
    batch: bytes
    kinds: Kinds


class Lease(NamedTuple):
    """A lease as stored; `remaining` seconds by the database's clock, None where it keeps none."""

    id: int
    ttl: int
    remaining: float | None
    expired: bool


class Alarm(NamedTuple):
    """An active alarm; `kind` is etcd's AlarmType (1 NOSPACE, 2 CORRUPT)."""

    member: int
    kind: int


class AuthState(NamedTuple):
    """Users, roles and the switch, as opaque rows ``(kind, name) -> body``."""

    rows: Mapping[tuple[int, bytes], bytes]


class Batch(NamedTuple):
    """What to append, all or nothing."""

    batch: bytes  # 16 random bytes, new for every attempt
    expected: int  # head.change that it was evaluated at
    revision: int  # head.revision afterwards
    kinds: Kinds
    rows: Sequence[Row] = ()
    granted: Sequence[tuple[int, int]] = ()  # (lease id, ttl seconds)
    dropped: Sequence[int] = ()  # lease ids, dropped before others are granted
    auth: AuthState | None = None
    alarms: Sequence[Alarm] | None = None  # the whole set afterwards
    compacted: int | None = None
    base: bytes | None = None
    """The batch of commit `expected`, compared too where it is given and others may write: a
    pooler can hide that another history has reached the same number."""


class FileSync(NamedTuple):
    """A file whose fdatasync, by whoever does it, makes a commit durable.

    `done` has to be told of its error, or None, and the seconds it took; it raises what
    `Backend.append` raises.
    """

    descriptor: int
    done: Callable[[OSError | None, float], None]


class Appended(NamedTuple):
    """The batch is in the log.

    `sync`, where not None, is what remains to be run in a thread before the commit is durable:
    nothing may be answered before it returned. It raises what `Backend.append` raises. `file`,
    where not None, may be synced instead.
    """

    head: Head
    sync: Callable[[], None] | None = None
    file: FileSync | None = None


class Moved(NamedTuple):
    """Somebody committed since `Batch.expected`; nothing was written."""

    head: Head


class Tail(NamedTuple):
    """Commits after a position, oldest first, with all their rows."""

    head: Head
    commits: Sequence[Commit]
    rows: Sequence[Row]


class Page(NamedTuple):
    """Rows of whole revisions, ascending; `pruned` is from the same snapshot."""

    pruned: int
    rows: Sequence[Row]
    more: bool


class Values(NamedTuple):
    """Values of the first `looked` rows that were asked for; `pruned` as in `Page`."""

    pruned: int
    found: Mapping[RowId, bytes]
    looked: int


def cut_values(pruned: int, found: Mapping[RowId, bytes | None], ids: Sequence[RowId]) -> Values:
    """Return what was found of `ids` as a page."""
    page: dict[RowId, bytes] = {}
    size = 0
    for looked, row_id in enumerate(ids):
        if size >= PAGE_BYTES:
            return Values(pruned, page, looked)
        value = found.get(row_id)
        if value is not None and row_id not in page:
            page[row_id] = value
            size += len(value)
    return Values(pruned, page, len(ids))


class Member(NamedTuple):
    """A server on this database; `horizon` is the oldest revision it still reads from the log."""

    id: int
    name: str
    client_urls: Sequence[str]
    horizon: int


class Size(NamedTuple):
    """Bytes that the database takes, and bytes of them in use."""

    total: int
    in_use: int
    spare: int | None = None
    """What the disk can take until only that is left which deleting needs; None: not known."""


class BackendError(Exception):
    """A backend could not do what was asked. The message is for people."""


class NotReady(BackendError):
    """The store cannot be opened: why, and what to do about it."""


class Unreachable(NotReady):
    """The database server does not let anybody in, or not yet."""


class Unavailable(BackendError):
    """Definitely not applied, and never will be."""


class OutcomeUnknown(BackendError):
    """May be applied, now or later: settle by `Backend.commit` before anything else."""


class Full(BackendError):
    """No space left. Definitely not applied."""


class Diverged(BackendError):
    """The log is another history than the one this server applied."""


class Corrupt(BackendError):
    """A row is missing or unreadable and pruning does not explain it, or I/O failed for good."""


class Closeable(Protocol):
    """Something that is stopped by `close`."""

    def close(self) -> None:
        """Stop. Idempotent."""


class Turn(Protocol):
    """The turn lock of a shared backend, held: nobody else appends meanwhile."""

    def tail(self, position: Commit, limit: int) -> Tail:
        """As `Backend.tail`."""

    def append(self, batch: Batch) -> Appended | Moved:
        """As `Backend.append`."""


class Backend(Protocol):
    """A durable, totally ordered log of commits."""

    shared: bool
    """Whether other servers may append (False: nobody else can write)."""
    inline: bool
    """Whether `append` is quick enough to be called on the event loop (write-path.md, SQLite)."""

    def open(self) -> Head:
        """Lock, create, migrate. Raise NotReady(reason, what to do)."""

    def head(self) -> Head:
        """Return the head as a writable primary has it. Raise Unavailable."""

    def commit(self, change: int) -> Commit | None:
        """Return the commit row of `change`, which decides a batch's fate, or None."""

    def append(self, batch: Batch) -> Appended | Moved:
        """Append, if `expected` is still the head's change. The only write that moves `change`."""

    def turn(self) -> AbstractContextManager[Turn]:
        """Take the turn lock. Shared backends only."""

    def load(self) -> AbstractContextManager[tuple[Head, Commit, Iterator[Sequence[Meta]]]]:
        """Give the head, its commit row and every row's meta, ascending, in one snapshot."""

    def tail(self, position: Commit, limit: int) -> Tail:
        """Return commits after `position` with about `limit` rows, cut to whole commits.

        Raise Diverged when the commit row at `position` is missing above the pruned ones, is
        another batch, or the head is below it.
        """

    def history(self, first: int, last: int, limit: int) -> Page:
        """Return a page of the revisions `first` to `last` inclusive, about `limit` rows."""

    def values(self, ids: Sequence[RowId]) -> Values:
        """Return a page of values, in the order asked for, of those rows that have one.

        Thousands may be asked for; the first is always looked for.
        """

    def leases(self) -> Sequence[Lease]:
        """Return all leases."""

    def keep_alive(self, ids: Sequence[int]) -> set[int]:
        """Renew, and return those renewed; an expired one is not. Moves nothing. Shared only."""

    def expire(self, limit: int) -> Sequence[int]:
        """Mark overdue leases by the database's clock and return all marked. Shared only."""

    def promote(self) -> None:
        """Extend every deadline to at least now + ttl. Shared only."""

    def auth(self) -> AuthState:
        """Return the stored auth state."""

    def alarms(self) -> Sequence[Alarm]:
        """Return the active alarms."""

    def prune(self, pruned: int, ids: Sequence[RowId]) -> None:
        """Raise `head.pruned` durably, then delete the rows in chunks. Never moves `change`."""

    def heartbeat(self, me: Member) -> Sequence[Member]:
        """Note that this server lives and return the live ones."""

    def size(self) -> Size:
        """Return how large the database is."""

    def defragment(self) -> None:
        """Give unused space back, without stopping readers for long."""

    def listen(self, wake: Callable[[], None]) -> Closeable | None:
        """Call `wake` (any thread) when another server may have committed; None: poll."""

    def close(self) -> None:
        """Let go of everything. Idempotent."""
