"""This server's copy of the log: where it stands, how it moves, how it catches up.

The index moves in one place, `Replica.apply`: the commit after the position is applied, an older
one is ignored, a newer one is a gap to be read first. Own and foreign commits take the same path,
so a tail read that delivers an own batch before its reply came back changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Protocol, TypeVar, TypeVarTuple

from datastore.shim.backends.api import (
    Backend,
    Commit,
    Corrupt,
    Diverged,
    Head,
    Kinds,
    Page,
    Row,
    RowId,
    Tail,
    Unavailable,
    to_revision,
)
from datastore.shim.errors import Compacted, CorruptStore, NoLeader
from datastore.shim.health import Health
from datastore.shim.lanes import Lanes
from datastore.shim.mvcc.store import Applied, Store
from datastore.shim.mvcc.version import Change, Version

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

TAIL_ROWS = 1000
VALUES_PAGE = 1000
POLL_SECONDS = 0.05


class Publisher(Protocol):
    """Whom committed changes are told to, in order (watch.hub.Hub)."""

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
        self.foreign_at = float("-inf")
        """When a commit of another server was last applied, on the loop's clock."""
        self.appending = b""
        """The batch that this server's writer has under way."""
        self._cache_bytes = cache_bytes
        self._publisher: Publisher | None = None
        self._wake = asyncio.Event()
        self._catching_up = asyncio.Lock()
        self._next_read: asyncio.Future[None] | None = None
        self._reads: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the backend and load the index. Raises NotReady, Unavailable, Corrupt."""
        self.head = await self.lanes.upkeep(self.backend.open)
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
        for revision, group in _by_revision(changes):
            publisher.publish(revision, group)
        if applied.compacted is not None:
            publisher.compacted(applied.compacted)

    async def catch_up(self) -> None:
        """Apply what others committed, up to a head read after the call began."""
        async with self._catching_up:
            while True:
                position = self.position
                tail = await self._read_tail(position)
                if tail is None or not await self.absorb(tail):
                    await self._reload()
                    return
                if self.position.change >= tail.head.change:
                    return

    async def absorb(self, tail: Tail) -> bool:
        """Apply a tail; return False where pruning has overtaken this server: reload then."""
        self.head = tail.head
        if tail.head.pruned > self.store.revision:
            return False
        for commit, rows in _by_commit(tail):
            if commit.change <= self.position.change:
                continue
            applied = await self._foreign(commit, rows, tail.head)
            if commit.change <= self.position.change:  # applied by the writer meanwhile
                continue
            self.apply(commit, applied)
            if commit.batch != self.appending:
                self.foreign_at = asyncio.get_running_loop().time()
        return True

    async def reload(self) -> None:
        """Forget the index and read it again."""
        async with self._catching_up:
            await self._reload()

    # -- reading --------------------------------------------------------------------------

    async def read_index(self) -> None:
        """Wait until everything committed before the call is applied.

        All who wait share one head read, which began after they came.
        """
        if not self.shared:
            return
        if self._next_read is None:
            self._next_read = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(self._run_read(self._next_read))
            self._reads.add(task)
            task.add_done_callback(self._reads.discard)
        await asyncio.shield(self._next_read)

    async def values(self, ids: Sequence[RowId]) -> dict[RowId, bytes]:
        """Fetch values by primary key. Raises Compacted where pruning was quicker."""
        found: dict[RowId, bytes] = {}
        for start in range(0, len(ids), VALUES_PAGE):
            page = ids[start : start + VALUES_PAGE]
            pruned, values = await self._read(self.backend.values, page)
            for row in page:
                if row not in values:
                    self._explain_missing(row, pruned)
            found.update(values)
        return found

    async def history(self, first: int, last: int, limit: int) -> Page:
        """Return stored rows of a range of revisions."""
        return await self._read(self.backend.history, first, last, limit)

    async def follow(self) -> None:
        """Apply foreign commits for ever, woken by the backend's hint or by a poll."""
        if not self.shared:
            return
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(self._wake.set)

        hint = self.backend.listen(wake)
        try:
            while True:
                await self._rest()
                try:
                    await self.read_index()
                except (NoLeader, CorruptStore):
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            if hint is not None:
                hint.close()

    async def close(self) -> None:
        """End reads under way, then the backend and the lanes."""
        for task in self._reads:
            task.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)
        await self.lanes.upkeep(self.backend.close)
        self.lanes.close()

    # -- inside ---------------------------------------------------------------------------

    async def _load(self) -> None:
        head, position, store = await self.lanes.read(self._load_store)
        self.head, self.position, self.store = head, position, store
        now = asyncio.get_running_loop().time()
        store.leases.promote(now)

    def _load_store(self) -> tuple[Head, Commit, Store]:
        with self.backend.load() as (head, position, pages):
            store = Store.load(
                head, pages, self.backend.leases(), self.backend.alarms(), self._cache_bytes
            )
        return head, position, store

    async def _reload(self) -> None:
        await self._load()
        if self._publisher is not None:
            self._publisher.reset(self.store)

    async def _read_tail(self, position: Commit) -> Tail | None:
        try:
            tail = await self.lanes.head(self.backend.tail, position, TAIL_ROWS)
        except Unavailable as error:
            raise NoLeader(str(error)) from error
        except (Diverged, Corrupt) as error:
            self.health.fail(str(error))
            raise CorruptStore(str(error)) from error
        return None if tail.head.pruned > position.revision else tail

    async def _foreign(self, commit: Commit, rows: Sequence[Row], head: Head) -> Applied:
        """Return what a foreign commit changed; leases and alarms are read as they are now.

        They may already be those of a later commit. That is harmless: what is evaluated on them
        is validated against the head before it is answered.
        """
        versions = [_to_version(row) for row in rows]
        granted: Sequence[tuple[int, int]] = ()
        dropped: Sequence[int] = ()
        if commit.kinds & Kinds.LEASE:
            stored = {lease.id: lease.ttl for lease in await self._read(self.backend.leases)}
            known = set(self.store.leases.ids())
            granted = [(lease, ttl) for lease, ttl in stored.items() if lease not in known]
            dropped = [lease for lease in known if lease not in stored]
        alarms = await self._read(self.backend.alarms) if commit.kinds & Kinds.ALARM else None
        compacted = None
        if self.store.compacted < head.compacted <= commit.revision:
            compacted = head.compacted
        return Applied(commit.revision, versions, granted, dropped, compacted, alarms)

    async def _run_read(self, waiters: asyncio.Future[None]) -> None:
        # One turn of the loop, so that requests that came together share the read; whoever
        # comes after it has begun waits for the next one.
        await asyncio.sleep(0)
        self._next_read = None
        try:
            head = await self.lanes.head(self.backend.head)
            self.health.serve()
            if head.change != self.position.change:
                await self.catch_up()
        except Unavailable as error:
            self.health.away(str(error))
            _settle(waiters, NoLeader(str(error)))
        except Corrupt as error:
            self.health.fail(str(error))
            _settle(waiters, CorruptStore(str(error)))
        except (NoLeader, CorruptStore) as error:
            _settle(waiters, error)
        else:
            _settle(waiters, None)

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

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()


def _by_revision(changes: Sequence[Change]) -> Iterator[tuple[int, Sequence[Change]]]:
    """Cut changes where the revision changes; one revision, the common case, is not copied."""
    if not changes:
        return
    last = changes[-1].version.mod_revision
    if changes[0].version.mod_revision == last:
        yield last, changes
        return
    for revision, group in groupby(changes, key=lambda change: change.version.mod_revision):
        yield revision, list(group)


def _by_commit(tail: Tail) -> Iterator[tuple[Commit, Sequence[Row]]]:
    """Give each commit the rows up to its revision."""
    start = 0
    for commit in tail.commits:
        end = start
        while end < len(tail.rows) and to_revision(tail.rows[end].meta.id) <= commit.revision:
            end += 1
        yield commit, tail.rows[start:end]
        start = end


def _to_version(row: Row) -> Version:
    version = Version.from_meta(row.meta)
    if row.value is not None:
        version.framed = version.encode(row.value)
    return version


def _settle(waiters: asyncio.Future[None], error: Exception | None) -> None:
    if waiters.done():
        return
    if error is None:
        waiters.set_result(None)
    else:
        waiters.set_exception(error)
        waiters.exception()  # everybody may have gone
