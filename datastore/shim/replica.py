"""This server's copy of the log: where it stands, how it moves, how it catches up.

The index moves in one place, `Replica.apply`: the commit after the position is applied, an older
one is ignored, a newer one is a gap to be read first. Own and foreign commits take the same path,
so a tail read that delivers an own batch before its reply came back changes nothing.

On a shared database every look at the log is an inclusive tail: it verifies the commit at this
server's own position (log.md A2), and it is the one place that decides whether the database can be
reached. While it cannot, follower.py tries with growing pauses, and everybody else is refused at
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeVar, TypeVarTuple

from datastore.shim.backends.api import (
    Alarm,
    Backend,
    BackendError,
    Commit,
    Corrupt,
    Diverged,
    Head,
    Kinds,
    Lease,
    Meta,
    Page,
    Row,
    RowId,
    Tail,
    Unavailable,
    to_revision,
)
from datastore.shim.errors import Compacted, CorruptStore, NoLeader
from datastore.shim.foreign import (
    by_commit,
    by_revision,
    compacted_by,
    compare_leases,
    reads_beside,
    to_auth,
    to_version,
)
from datastore.shim.health import Health, State
from datastore.shim.holds import Holds
from datastore.shim.lanes import Lanes
from datastore.shim.mvcc.auth import Auth
from datastore.shim.mvcc.store import Applied, Store
from datastore.shim.mvcc.version import Change

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

TAIL_ROWS: Final = 1000
VALUES_PAGE: Final = 1000
CONTENTION_SECONDS: Final = 1.0
"""How long others count as busy after a commit of theirs."""
ANSWER_SECONDS: Final = 6.0
"""Above the timeouts of the backends: without an answer for so long the database is away."""


class Publisher(Protocol):
    """Whom committed changes are told to, in order (watch.hub.Hub)."""

    revision: int
    """The last one that it was told of."""

    def publish(self, revision: int, changes: Sequence[Change]) -> None:
        """Take the changes of one revision."""

    def compacted(self, revision: int) -> None:
        """Note a compaction."""

    def reset(self, store: Store) -> None:
        """Go on with another store: changes between the two are lost to memory."""


class Replica:
    """One server's copy of the log."""

    store: Store
    position: Commit
    head: Head

    def __init__(
        self, backend: Backend, lanes: Lanes, health: Health, *, cache_bytes: int
    ) -> None:
        self.backend = backend
        self.lanes = lanes
        self.health = health
        self.shared = backend.shared
        self.holds = Holds()
        self.read_beside = 0
        """How often leases, alarms or auth were read beside the log, and so may be those of a
        later commit than the position: until a look that finds no such commit."""
        self.foreign_at = float("-inf")
        """When a commit of another server was last applied, on the loop's clock."""
        self.appending = b""
        """The batch that this server's writer has under way."""
        self._cache_bytes = cache_bytes
        self._publisher: Publisher | None = None
        self._suspect = False
        self._closing = False
        self.wake = asyncio.Event()
        """Set when it is time for a look at the log."""
        self._catching_up = asyncio.Lock()
        self._next_look: asyncio.Future[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()

    async def start(self, check: Callable[[Backend], None] | None = None) -> None:
        """Open the backend, let it be checked, and load the index. Raises BackendError."""
        self.head = await self.lanes.upkeep(self.backend.open)
        if check is not None:
            await self.lanes.upkeep(check, self.backend)
        await self._load()
        self.health.serve()

    def attach(self, publisher: Publisher) -> None:
        """Tell `publisher` of every commit from now on."""
        self._publisher = publisher

    # -- moving ---------------------------------------------------------------------------

    def apply(self, commit: Commit, applied: Applied) -> None:
        """Apply the commit after the position; ignore an older one. Hot.

        Raises:
            AssertionError: a commit is missing between the position and this one.
        """
        if commit.change <= self.position.change:
            return
        assert commit.change == self.position.change + 1, "a commit was skipped"
        store = self.store
        changes = store.apply(applied)
        self.position = commit
        if applied.granted:
            now = asyncio.get_running_loop().time()
            for lease, _ in applied.granted:
                store.leases.renew(lease, now)
        publisher = self._publisher
        if publisher is None:
            return
        told = 0
        for told, group in by_revision(changes):
            publisher.publish(told, group)
        if told != applied.revision and applied.revision > publisher.revision:
            # An accepted loss moves the revision without a change (acceptance.py).
            publisher.publish(applied.revision, ())
        if applied.compacted is not None:
            publisher.compacted(applied.compacted)

    async def absorb(self, tail: Tail) -> bool:
        """Apply a tail; return False where pruning has overtaken this server: reload then."""
        self.head = tail.head
        if tail.head.pruned > self.store.revision:
            return False
        self.read_beside += reads_beside(tail)
        leases: Sequence[Lease] | None = None
        alarms: Sequence[Alarm] | None = None
        auth: Auth | None = None
        for commit, rows in by_commit(tail):
            # Read once a tail: what is read after it has the state of all its commits.
            if leases is None and commit.kinds & Kinds.LEASE:
                leases = await self._read(self.backend.leases)
            if alarms is None and commit.kinds & Kinds.ALARM:
                alarms = await self._read(self.backend.alarms)
            if auth is None and commit.kinds & Kinds.AUTH:
                auth = to_auth(await self._read(self.backend.auth))
            if commit.change <= self.position.change:  # applied by the writer meanwhile
                continue
            if commit.change > self.position.change + 1:  # its predecessors' rows are pruned
                return False
            applied = self._to_applied(commit, rows, tail.head, leases, alarms)
            if commit.kinds & Kinds.AUTH:
                applied = applied._replace(auth=auth)
            self.apply(commit, applied)
            if commit.batch != self.appending:
                self.foreign_at = asyncio.get_running_loop().time()
        return True

    @property
    def contended(self) -> bool:
        """Whether another server has committed lately."""
        if not self.shared:
            return False
        return asyncio.get_running_loop().time() - self.foreign_at < CONTENTION_SECONDS

    async def catch_up(self) -> None:
        """Apply all that was committed before the call, and verify the own position.

        All who wait share one look at the log, which began after they came.

        Raises:
            NoLeader: The database cannot be reached.
            CorruptStore: The log is damaged or is another history.
        """
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(self._look_for(self._next_look))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)
        await asyncio.shield(self._next_look)

    def suspect(self, reason: str) -> None:
        """Note that an operation found the database away.

        Where others write too, the next look decides, at once: health does not flap between
        operations of different fates, and nothing is appended before the position is verified.
        """
        if not self.shared:
            self.health.away(reason)
            return
        self._suspect = True
        self.wake.set()

    async def trust(self) -> None:
        """Verify the position, if the database may be another one now. As `read_index`."""
        if self._suspect:
            await self.read_index()

    async def reload(self) -> None:
        """Forget the index and read it again."""
        async with self._catching_up:
            await self._reload()

    # -- reading --------------------------------------------------------------------------

    async def read_index(self) -> None:
        """Wait until everything committed before the call is applied. Raises as `catch_up`.

        While the database is away nobody waits: `follower.follow` finds out when it is back.
        """
        if not self.shared:
            return
        self.check_reachable()
        await self.catch_up()

    def check_reachable(self) -> None:
        """Raise NoLeader while a shared database is away."""
        if self.shared and self.health.state is State.AWAY:
            raise NoLeader(self.health.reason)

    async def values(self, ids: Sequence[RowId]) -> dict[RowId, bytes]:
        """Fetch values by primary key. Raises Compacted where pruning was quicker."""
        found: dict[RowId, bytes] = {}
        at = 0
        while at < len(ids):
            page = await self.some_values(ids[at : at + VALUES_PAGE])
            found.update(page)
            at += len(page)
        return found

    async def some_values(self, ids: Sequence[RowId]) -> Mapping[RowId, bytes]:
        """Fetch a page of the values of these rows, from the first one on. Raises as `values`."""
        wanted = ids[:VALUES_PAGE]
        pruned, values, looked = await self._read(self.backend.values, wanted)
        for row in wanted[:looked]:
            if row not in values:
                self._explain_missing(row, pruned)
        return values

    async def history(self, first: int, last: int, limit: int) -> Page:
        """Return stored rows of a range of revisions."""
        return await self._read(self.backend.history, first, last, limit)

    async def close(self) -> None:
        """End reads under way, a load too, then the backend and the lanes."""
        self._closing = True
        for task in self._looks:
            task.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)
        await self.lanes.upkeep(self.backend.close)
        self.lanes.close()

    # -- inside ---------------------------------------------------------------------------

    async def _load(self) -> None:
        self.read_beside += 1
        head, position, store = await self.lanes.read(self._load_store)
        self.head, self.position, self.store = head, position, store
        now = asyncio.get_running_loop().time()
        store.leases.promote(now)

    def _load_store(self) -> tuple[Head, Commit, Store]:
        with self.backend.load() as (head, position, pages):
            store = Store.load(
                head,
                self._until_closed(pages),
                self.backend.leases(),
                self.backend.alarms(),
                self._cache_bytes,
                auth=to_auth(self.backend.auth()),
            )
        return head, position, store

    def _until_closed(self, pages: Iterable[Sequence[Meta]]) -> Iterator[Sequence[Meta]]:
        """Give up a load, which may take many seconds, when nobody wants it any more."""
        for page in pages:
            if self._closing:
                raise Unavailable("the server is stopping")
            yield page

    async def _reload(self) -> None:
        await self._load()
        if self._publisher is not None:
            self._publisher.reset(self.store)

    async def _look_for(self, waiters: asyncio.Future[None]) -> None:
        # One turn of the loop, so that requests that came together share the look; whoever
        # comes after it has begun waits for the next one.
        await asyncio.sleep(0)
        async with self._catching_up:
            self._next_look = None
            suspected = self._suspect
            try:
                await self._catch_up()
            except (Diverged, Corrupt) as error:
                self.health.fail(str(error))
                _settle(waiters, CorruptStore(str(error)))
            except CorruptStore as error:
                _settle(waiters, error)
            except (BackendError, NoLeader) as error:
                self._suspect = True
                self.health.away(str(error))
                _settle(waiters, NoLeader(str(error)))
            except Exception as error:
                self.health.fail(f"a look at the log failed: {error!r}")
                _settle(waiters, CorruptStore(self.health.reason))
                raise
            else:
                if suspected:
                    self._suspect = False
                self.health.serve()
                _settle(waiters, None)

    async def _catch_up(self) -> None:
        goal: int | None = None
        while goal is None or self.position.change < goal:
            position = self.position
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    tail = await self.lanes.head(self.backend.tail, position, TAIL_ROWS)
            except TimeoutError:
                reason = f"no answer from the database within {ANSWER_SECONDS:g} s"
                raise Unavailable(reason) from None
            if goal is None:
                goal = tail.head.change
            if not await self.absorb(tail):
                await self._reload()

    def _to_applied(
        self,
        commit: Commit,
        rows: Sequence[Row],
        head: Head,
        leases: Sequence[Lease] | None,
        alarms: Sequence[Alarm] | None,
    ) -> Applied:
        granted: Sequence[tuple[int, int]] = ()
        dropped: Sequence[int] = ()
        if leases is not None and commit.kinds & Kinds.LEASE:
            granted, dropped = compare_leases(self.store.leases, leases)
        if not commit.kinds & Kinds.ALARM:
            alarms = None
        compacted = compacted_by(commit, head.compacted, self.store.compacted)
        versions = [to_version(row) for row in rows]
        return Applied(commit.revision, versions, granted, dropped, compacted, alarms)

    async def _read(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        try:
            return await self.lanes.read(call, *args)
        except Unavailable as error:
            raise NoLeader(str(error)) from error
        except Corrupt as error:
            self.health.fail(str(error))
            raise CorruptStore(str(error)) from error

    def _explain_missing(self, row: RowId, pruned: int) -> None:
        if to_revision(row) <= pruned:
            raise Compacted(pruned)
        reason = f"row {to_revision(row)} is missing from the log though nothing pruned it"
        self.health.fail(reason)
        raise CorruptStore(reason)


def _settle(waiters: asyncio.Future[None], error: Exception | None) -> None:
    if waiters.done():
        return
    if error is None:
        waiters.set_result(None)
    else:
        waiters.set_exception(error)
        waiters.exception()  # everybody may have gone
