"""Past events: the ring of recent ones in memory, and pages of the log before that."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from datastore.shim.backends.api import Corrupt, Page, RowId
from datastore.shim.errors import Compacted
from datastore.shim.mvcc.version import Change, Version
from datastore.shim.watch import events as encoding
from datastore.shim.watch.events import Event

if TYPE_CHECKING:
    from datastore.shim.mvcc.store import Store

MAX_REVISIONS = 1000
"""etcd: watcher_group.go, watchBatchMaxRevs: distinct revisions in one catch-up response."""

_TARGET_BYTES = 4 << 20
_MIN_ROWS = 16


class Moment(NamedTuple):
    """All events of one revision."""

    revision: int
    events: Sequence[Event]
    size: int


class Stretch(NamedTuple):
    """All events of the revisions from `first` to `last`, both included."""

    first: int
    last: int
    moments: Sequence[Moment]


class Ring:
    """The latest revisions, bounded in bytes. Holds everything from `first` on."""

    def __init__(self, first: int, max_bytes: int) -> None:
        self.first = first
        self._max_bytes = max_bytes
        self._bytes = 0
        self._moments: deque[Moment] = deque()

    def append(self, revision: int, events: Sequence[Event]) -> None:
        """Add a revision and forget the oldest above the bound, even this one if too large."""
        size = sum(event.size for event in events)
        self._moments.append(Moment(revision, events, size))
        self._bytes += size
        while self._bytes > self._max_bytes:
            oldest = self._moments.popleft()
            self._bytes -= oldest.size
            self.first = oldest.revision + 1

    def read(self, first: int, last: int) -> Stretch:
        """Return the stretch from `first`, which must be held, cut to a batch."""
        moments: list[Moment] = []
        size = 0
        at = bisect_left(self._moments, first, key=itemgetter(0))
        while at < len(self._moments):
            moment = self._moments[at]
            if moment.revision > last:
                break
            if len(moments) == MAX_REVISIONS or (moments and size + moment.size > _TARGET_BYTES):
                return Stretch(first, moments[-1].revision, moments)
            moments.append(moment)
            size += moment.size
            at += 1
        return Stretch(first, last, moments)


class HistoryReader:
    """The one reader of past events that all unsynced watchers of a hub share.

    Args:
        store: the index, which knows what a change replaced.
        history: `Backend.history` in a lane of its own.
        values: `Backend.values` likewise; raises Compacted when pruning has overtaken it.
        ring_bytes: what the recent events may take.
    """

    def __init__(
        self,
        store: Store,
        history: Callable[[int, int, int], Awaitable[Page]],
        values: Callable[[Sequence[RowId]], Awaitable[Mapping[RowId, bytes]]],
        *,
        ring_bytes: int = 32 << 20,
    ) -> None:
        self._store = store
        self._history = history
        self._values = values
        self._rows = 256
        self.ring = Ring(store.revision + 1, ring_bytes)

    async def read(self, first: int, last: int) -> Stretch:
        """Return whole revisions from `first`, at most to `last`.

        From the ring this returns without a turn of the loop.

        Raises:
            Compacted: rows of `first` may be pruned; its `revision` is the oldest that is whole.
        """
        if first >= self.ring.first:
            return self.ring.read(first, last)
        page = await self._history(first, last, self._rows)
        if page.pruned > first:
            raise Compacted(page.pruned)
        moments = self._to_moments(page)
        self._adapt(page)
        return Stretch(first, moments[-1].revision if page.more else last, moments)

    async def complete(self, stretch: Stretch, ids: Sequence[RowId]) -> None:
        """Fetch the values of these rows into the events of the stretch.

        Raises:
            Compacted: some are pruned. What the changes replaced has been looked up again.
            Corrupt: some are missing and pruning does not explain it.
        """
        everything = [event for moment in stretch.moments for event in moment.events]
        try:
            values = await self._values(ids)
        except Compacted:
            for event in everything:
                if event.previous is not None and event.previous_framed is None:
                    event.previous = self._store.previous(event.version)
            raise
        encoding.fill(everything, values)
        lost = [row for row in ids if row not in values]
        if lost:
            raise Corrupt(f"{len(lost)} rows of the log are missing, row id {lost[0]} first")

    def _to_moments(self, page: Page) -> list[Moment]:
        known: dict[RowId, bytes] = {}
        events: list[Event] = []
        for meta, value in page.rows:
            version = Version.from_meta(meta)
            if value is not None:
                version.framed = known[meta.id] = version.encode(value)
            event = Event(Change(version, self._store.previous(version)))
            if event.previous is not None and event.previous_framed is None:
                event.previous_framed = known.get(event.previous.id)
            events.append(event)
        return [
            Moment(revision, list(of), 0)
            for revision, of in groupby(events, key=lambda event: event.version.mod_revision)
        ]

    def _adapt(self, page: Page) -> None:
        """Ask for as many rows next time as make about `_TARGET_BYTES`."""
        if page.rows:
            mean = 1 + sum(len(row.value or b"") for row in page.rows) // len(page.rows)
            self._rows = max(_MIN_ROWS, min(MAX_REVISIONS, _TARGET_BYTES // mean))
