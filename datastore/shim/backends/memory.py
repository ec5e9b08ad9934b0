"""A backend in memory that several servers of one process can share, with faults on demand.

`Log` is what is durable: the state of the "database". Each server has its own `MemoryBackend` on
it, as it would have its own connections::

    log = Log(clock=clock.now)
    a = MemoryBackend(log, Script([Fault.ZOMBIE]), shared=True)
    b = MemoryBackend(log, shared=True)
    a.open(); b.open()

Everything is plain, synchronous and deterministic; each call is atomic (a lock makes it so for
threads too). Delays are the caller's business: whoever schedules the calls decides when they run.
What can be done to the log from outside, between or inside calls (`Faults` is called back):

=========================  ====================================================================
`log.append(batch)`        commit as another server would: no faults, no fence
`log.interlope()`          commit an empty batch of somebody else
`log.zombies`              batches whose reply is unknown and that are not yet applied
`log.release_zombies()`    they wake up: each is applied if its `expected` still matches
`log.kill_zombies()`       their sessions are ended: never applied
`log.lose_tail(change)`    go back to an earlier change, as after promoting a lagging replica
`log.prune(pruned, ids)`   prune as another server would
`log.turn_held`            whether somebody has the turn lock (see `MemoryBackend.turn`)
=========================  ====================================================================

Not shared (`shared=False`) it behaves as SQLite does: one server at a time may open the log, there
are no turns, no members, no hints, and leases have no deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from datastore.shim.backends.api import (
    Alarm,
    Appended,
    AuthState,
    BackendError,
    Batch,
    Closeable,
    Commit,
    Corrupt,
    Full,
    Head,
    Lease,
    Member,
    Meta,
    Moved,
    NotReady,
    OutcomeUnknown,
    Page,
    RowId,
    Size,
    Tail,
    Turn,
    Unavailable,
    Values,
)
from datastore.shim.backends.faults import Fault, Faults, Fence, Script
from datastore.shim.backends.memory_log import Log

__all__ = ["Fault", "Faults", "Fence", "Log", "MemoryBackend", "Script"]

PAGE_ROWS = 1000


class MemoryBackend:
    """One server's access to a `Log`, with the faults it is given."""

    def __init__(
        self,
        log: Log | None = None,
        faults: Faults | None = None,
        *,
        shared: bool = False,
        inline: bool = True,
        deferred_sync: bool = False,
        turn_seconds: float = 0.0,
    ) -> None:
        """Prepare; `open` starts.

        Args:
            log: The durable state; a new one where None.
            faults: Consulted at each operation; none where None.
            shared: Whether other servers may open the same log.
            inline: Whether the caller should append on the event loop.
            deferred_sync: Return an `Appended.sync` from each append.
            turn_seconds: How long `turn` waits for the lock; with 0 a held lock is Unavailable at
                once, since waiting would never end where one thread runs all servers.
        """
        self.log = Log() if log is None else log
        self.faults = Faults() if faults is None else faults
        self.shared = shared
        self.inline = inline
        self._deferred_sync = deferred_sync
        self._turn_seconds = turn_seconds
        self._opened = False
        self._has_turn = False

    def open(self) -> Head:
        self._fail(self.faults.read("open"))
        with self.log.lock:
            if not self.shared:
                if self.log.owner not in (None, self):
                    raise NotReady("the log is in use by another server: stop that one first")
                self.log.owner = self
            self._opened = True
            return self.log.head

    def head(self) -> Head:
        self._begin("head")
        return self.log.head

    def commit(self, change: int) -> Commit | None:
        self._begin("commit")
        return self.log.commits.get(change)

    def append(self, batch: Batch) -> Appended | Moved:
        self._check_open()
        fault = self.faults.append(batch)
        with self.log.lock:
            self._meet_zombies(batch)
            outcome = self._append(batch, fault)
        if isinstance(outcome, Moved):
            return outcome
        self._hint()
        return Appended(outcome, self._sync if self._deferred_sync else None)

    def _append(self, batch: Batch, fault: Fault | None) -> Head | Moved:
        match fault:
            case None:
                return self.log.append(batch)
            case Fault.LOST_APPLIED:
                self.log.append(batch)
                raise OutcomeUnknown("the connection broke after the append was sent")
            case Fault.LOST_NOT_APPLIED:
                raise OutcomeUnknown("the connection broke while the append was sent")
            case Fault.ZOMBIE:
                self.log.zombies.append(batch)
                raise OutcomeUnknown("the connection broke while the append was running")
            case Fault.OVERTAKEN:
                self.log.interlope()
                return self.log.append(batch)
            case Fault.DEADLOCK:
                return Moved(self.log.head)
            case Fault.UNAVAILABLE | Fault.FULL | Fault.CORRUPT:
                self._fail(fault)
        raise AssertionError(f"unknown fault {fault}")

    def _meet_zombies(self, batch: Batch) -> None:
        """Decide, as row locks would, between `batch` and zombies with the same `expected`."""
        for zombie in [z for z in self.log.zombies if z.expected == batch.expected]:
            match self.faults.fence(zombie, batch):
                case Fence.COMMITS:
                    self.log.zombies.remove(zombie)
                    self.log.append(zombie)
                case Fence.DIES:
                    self.log.zombies.remove(zombie)
                case Fence.OVERTAKEN:
                    pass
                case Fence.BLOCKS:
                    raise OutcomeUnknown("timed out behind another transaction")

    def _sync(self) -> None:
        self._fail(self.faults.sync())

    def _hint(self) -> None:
        for owner, wake in list(self.log.listeners):
            if owner is not self and self.faults.hint():
                wake()

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Hold the turn lock; appends without it are not stopped, the compare decides."""
        self._begin_shared("turn")
        if not self.log.turn_lock.acquire(timeout=self._turn_seconds):
            raise Unavailable("another server has had the turn for too long")
        self._has_turn = True
        try:
            yield self
        finally:
            self._give_turn_up()

    def _give_turn_up(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self.log.turn_lock.release()

    @contextmanager
    def load(self) -> Iterator[tuple[Head, Commit, Iterator[Sequence[Meta]]]]:
        self._begin("load")
        with self.log.lock:
            head = self.log.head
            commit = self.log.commits[head.change]
            metas = [row.meta for row in self.log.all_rows()]
        yield head, commit, self._pages(metas)

    def _pages(self, metas: Sequence[Meta]) -> Iterator[Sequence[Meta]]:
        for start in range(0, len(metas), PAGE_ROWS):
            if start:
                self.faults.between_pages("load")
            yield metas[start : start + PAGE_ROWS]

    def tail(self, position: Commit, limit: int) -> Tail:
        self._begin("tail")
        return self.log.tail(position, limit)

    def history(self, first: int, last: int, limit: int) -> Page:
        self._begin("history")
        return self.log.history(first, last, limit)

    def values(self, ids: Sequence[RowId]) -> Values:
        self._begin("values")
        return self.log.values(ids)

    def leases(self) -> Sequence[Lease]:
        self._begin("leases")
        return self.log.list_leases(timed=self.shared)

    def keep_alive(self, ids: Sequence[int]) -> set[int]:
        self._begin_shared("keep_alive")
        return self.log.keep_alive(ids)

    def expire(self, limit: int) -> Sequence[int]:
        self._begin_shared("expire")
        return self.log.expire(limit)

    def promote(self) -> None:
        self._begin_shared("promote")
        self.log.promote()

    def auth(self) -> AuthState:
        self._begin("auth")
        return self.log.auth

    def alarms(self) -> Sequence[Alarm]:
        self._begin("alarms")
        return self.log.alarms

    def prune(self, pruned: int, ids: Sequence[RowId]) -> None:
        self._begin("prune")
        self.log.prune(pruned, ids)

    def heartbeat(self, me: Member) -> Sequence[Member]:
        self._begin("heartbeat")
        return self.log.heartbeat(me) if self.shared else [me]

    def size(self) -> Size:
        self._begin("size")
        return self.log.size()

    def defragment(self) -> None:
        self._begin("defragment")
        self.log.defragment()

    def listen(self, wake: Callable[[], None]) -> Closeable | None:
        self._check_open()
        return Listener(self.log, self, wake) if self.shared else None

    def close(self) -> None:
        with self.log.lock:
            self._opened = False
            self._give_turn_up()  # as a database does whose client has gone
            self.log.listeners = [entry for entry in self.log.listeners if entry[0] is not self]
            if self.log.owner is self:
                self.log.owner = None

    def _begin(self, operation: str) -> None:
        self._check_open()
        self._fail(self.faults.read(operation))

    def _begin_shared(self, operation: str) -> None:
        if not self.shared:
            raise BackendError(f"{operation} is for shared stores: nobody else uses this one")
        self._begin(operation)

    def _check_open(self) -> None:
        if not self._opened:
            raise Unavailable("the store is closed")

    def _fail(self, fault: Fault | None) -> None:
        match fault:
            case Fault.UNAVAILABLE:
                raise Unavailable("the store cannot be reached")
            case Fault.FULL:
                raise Full("no space left")
            case Fault.CORRUPT:
                raise Corrupt("input/output error")
            case Fault.LOST_NOT_APPLIED:
                raise OutcomeUnknown("the connection broke")
            case _:
                pass


class Listener:
    """A registered wake-up; `close` ends it."""

    def __init__(self, log: Log, owner: MemoryBackend, wake: Callable[[], None]) -> None:
        self._log = log
        self._entry = (owner, wake)
        with log.lock:
            log.listeners.append(self._entry)

    def close(self) -> None:
        with self._log.lock:
            self._log.listeners = [e for e in self._log.listeners if e is not self._entry]
