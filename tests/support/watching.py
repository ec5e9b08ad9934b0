"""A hub over a real store, with its log in a dictionary and streams that record what they get."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby
from typing import ParamSpec, Self

from datastore.etcdpb import rpc_pb2
from datastore.shim.backends.api import NotReady, Page, Row, RowId, to_revision
from datastore.shim.errors import Compacted
from datastore.shim.mvcc.ops import Compact, DeleteRange, Put, Txn, Write
from datastore.shim.mvcc.overlay import Overlay
from datastore.shim.mvcc.store import Store
from datastore.shim.watch.history import HistoryReader
from datastore.shim.watch.hub import Hub
from datastore.shim.watch.watcher import Watcher, WatchSpec
from tests.support.history import Event, KeyValue, Log, Response, Watch, from_event
from tests.support.simulation import simulate

P = ParamSpec("P")
PREFIX = WatchSpec(b"a/", b"a0")


def since(revision: int, *, prev_kv: bool = False, fragment: bool = False) -> WatchSpec:
    """Ask for that prefix from a revision on."""
    return WatchSpec(PREFIX.key, PREFIX.end, revision, prev_kv=prev_kv, fragment=fragment)


def revisions(watch: Watch) -> list[list[int]]:
    """Return the revisions in each response."""
    return [[event.revision for event in response.events] for response in watch.responses]


def simulated(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a test on a clock that jumps."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        simulate(functools.partial(test, *args, **kwargs))

    return run


class Recorder:
    """A watch stream that keeps what it is given; `stall` makes it a slow one."""

    def __init__(self, hub: Hub) -> None:
        self.watches: dict[Watcher, Watch] = {}
        self.bodies: list[tuple[int, bytes]] = []
        self.parts: list[int] = []
        self.manual: list[int] = []
        self.notified: list[tuple[int, int]] = []
        self.stalled = False
        self._hub = hub
        self._pending = 0
        self._fragments: list[Event] = []

    def events(self, watcher: Watcher, revision: int, body: bytes, last_part: bool) -> int:
        record = self.watches[watcher]
        assert not record.canceled_at, "an event after the end"
        response = rpc_pb2.WatchResponse.FromString(body)
        self._fragments += map(from_event, response.events)
        self.bodies.append((watcher.id, body))
        if last_part:
            self.parts.append(len(self._fragments))
            record.responses.append(Response(revision, tuple(self._fragments)))
            self._fragments = []
        if self.stalled:
            self._pending += len(body)
        return self._pending

    def progress(self, watcher: Watcher | None, revision: int) -> None:
        if watcher is None:
            self.manual.append(revision)
            for record in self.watches.values():
                if not record.canceled_at:
                    record.responses.append(Response(revision))
        else:
            self.notified.append((watcher.id, revision))
            self.watches[watcher].responses.append(Response(revision))

    def canceled(self, watcher: Watcher, compact_revision: int) -> None:
        assert compact_revision
        self.watches[watcher].canceled_at = compact_revision

    def drain(self) -> None:
        self.stalled = False
        self._pending = 0
        self._hub.drained(self)

    def forget(self, watcher: Watcher) -> None:
        """Fail on anything more for this watcher; progress of the stream is not its business."""
        self.watches[watcher].canceled_at = -1


class World:
    """One server's store and hub, and everything that was ever committed."""

    def __init__(
        self,
        *,
        cache_bytes: int = 1 << 20,
        ring_bytes: int = 1 << 20,
        stream_bytes: int = 1 << 20,
        fragment_bytes: int = 1 << 20,
        page_bytes: int = 8 << 20,
    ) -> None:
        self.store = Store(cache_bytes=cache_bytes)
        self.log = Log()
        self.rows: dict[RowId, Row] = {}
        self._known: dict[RowId, bytes] = {}
        self.pruned = -1
        self.reads: list[str] = []
        self.fetched: list[int] = []
        """Bytes of values of each read."""
        self._page_bytes = page_bytes
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        reader = HistoryReader(self.store, self._history, self._values, ring_bytes=ring_bytes)
        self.hub = Hub(
            self.store, reader, stream_bytes=stream_bytes, fragment_bytes=fragment_bytes
        )
        self.streams: list[Recorder] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self.hub.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self._task.cancelled():
            self._task.result()

    async def settle(self) -> None:
        """Let everything happen that can: a minute, on a clock that jumps."""
        await asyncio.sleep(60)

    def stream(self) -> Recorder:
        self.streams.append(Recorder(self.hub))
        return self.streams[-1]

    def watch(
        self, stream: Recorder, spec: WatchSpec, watch_id: int | None = None
    ) -> tuple[Watcher, Watch]:
        number = len(stream.watches) if watch_id is None else watch_id
        watcher = self.hub.watch(spec, stream, number)
        stream.watches[watcher] = record = Watch(
            spec.key,
            spec.end,
            spec.start_revision,
            spec.prev_kv,
            spec.no_put,
            spec.no_delete,
            watcher.created_revision,
            compacted=self.store.compacted,
        )
        return watcher, record

    def put(self, key: bytes, value: bytes = b"v") -> int:
        return self.write(Put(key, value))

    def delete(self, key: bytes, end: bytes = b"") -> int:
        return self.write(DeleteRange(key, end))

    def txn(self, *ops: Put | DeleteRange) -> int:
        return self.write(Txn(success=ops))

    def compact(self, revision: int) -> None:
        self.write(Compact(revision))
        for stream in self.streams:
            for record in stream.watches.values():
                record.compacted = self.store.compacted

    def prune(self) -> None:
        self.pruned = self.store.compacted
        for row in self.store.collect(self.pruned):
            del self.rows[row]

    def write(self, *writes: Write) -> int:
        """Commit the writes as one batch and return the revision."""
        self.commit(*writes)
        return self.store.revision

    def commit(self, *writes: Write, publish: bool = True) -> None:
        overlay = Overlay(self.store, self._known)
        for write in writes:
            overlay.evaluate(write)
        applied = overlay.applied()
        self.rows.update((row.meta.id, row) for row in overlay.rows)
        self._known.update((row.meta.id, row.value or b"") for row in overlay.rows)
        for row in overlay.rows:
            self.log.append(_to_event(row))
        changes = self.store.apply(applied)
        if not publish:
            return
        for revision, group in groupby(changes, key=lambda change: change.version.mod_revision):
            self.hub.publish(revision, list(group))
        if applied.compacted is not None:
            self.hub.compacted(applied.compacted)

    async def _history(self, first: int, last: int, limit: int) -> Page:
        self.reads.append("history")
        await self._wait()
        ids = sorted(row for row in self.rows if first <= to_revision(row) <= last)
        if len(ids) <= limit:
            return Page(self.pruned, [self.rows[row] for row in ids], more=False)
        bound = to_revision(ids[limit - 1])
        kept = [self.rows[row] for row in ids if to_revision(row) <= bound]
        return Page(self.pruned, kept, more=len(kept) < len(ids))

    async def _values(self, ids: Sequence[RowId]) -> Mapping[RowId, bytes]:
        self.reads.append("values")
        await self._wait()
        found: dict[RowId, bytes] = {}
        size = 0
        for row in ids:
            if size >= self._page_bytes:
                break
            if row not in self.rows and to_revision(row) <= self.pruned:
                raise Compacted(self.pruned)
            found[row] = self.rows[row].value or b""
            size += len(found[row])
        self.fetched.append(size)
        return found

    async def _wait(self) -> None:
        await asyncio.sleep(0)
        await self.open.wait()
        if self.away:
            raise NotReady("the store is away")


def _to_event(row: Row) -> Event:
    meta = row.meta
    revision = to_revision(meta.id)
    return Event(
        meta.tombstone,
        KeyValue(
            meta.key, row.value or b"", meta.create_revision, revision, meta.version, meta.lease
        ),
    )
