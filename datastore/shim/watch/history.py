"""Past events: a ring of recent ones, what the index knows before that, and pages of the log."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple

from datastore.shim.backends.api import SUB_BITS, Page, RowId
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
_MAX_SCAN = 4096

_id = attrgetter("id")


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
        size = 0
        for event in events:
            size += event.size
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

    Recent revisions come from the ring. Older ones above the compacted revision come from the
    index, which knows all their changes: only values that somebody is to be told are fetched, by
    primary key, so a narrow range costs little however much else was written. The compacted
    revision itself, which the index holds in part, is read from the log.

    Args:
        store: the index, which knows what a change replaced.
        history: `Backend.history` in a lane of its own.
        values: those of the first of some rows, as `Replica.some_values`.
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
        self._ring_bytes = ring_bytes
        self._rows = _MIN_ROWS
        self.ring = Ring(store.revision + 1, ring_bytes)

    def reset(self, store: Store) -> None:
        """Go on with another store; the ring starts anew at its revision."""
        self._store = store
        self.ring = Ring(store.revision + 1, self._ring_bytes)

    async def read(self, first: int, last: int, wants: Callable[[bytes], bool]) -> Stretch:
        """Return whole revisions from `first`, at most to `last`.

        Changes of keys that nobody `wants` may be left out.

        Raises:
            Compacted: rows of `first` may be pruned; its `revision` is the oldest that is whole.
        """
        if first >= self.ring.first:
            return self.ring.read(first, last)
        if first > self._store.compacted:
            return self._recall(first, last, wants)
        page = await self._history(first, last, self._rows)
        if page.pruned > first:
            raise Compacted(page.pruned)
        moments = self._to_moments(page)
        self._adapt([row.value for row in page.rows if row.value is not None])
        return Stretch(first, moments[-1].revision if page.more else last, moments)

    async def complete(self, stretch: Stretch, missing: Mapping[int, Sequence[RowId]]) -> Stretch:
        """Fetch values into the events of the stretch and return it, cut where a page ends.

        Its first revision is whole, however large that is.

        Args:
            stretch: As it was read.
            missing: The rows, each once, whose values are needed, by the revision to need them
                first, ascending.

        Raises:
            Compacted: some are pruned. What the changes replaced has been looked up again.
        """
        everything = [event for moment in stretch.moments for event in moment.events]
        ids = [row for of in missing.values() for row in of]
        least = len(next(iter(missing.values())))
        values: dict[RowId, bytes] = {}
        try:
            while len(values) < least:
                values.update(await self._values(ids[len(values) :]))
        except Compacted:
            for event in everything:
                if event.previous is not None and event.previous_framed is None:
                    event.previous = self._store.previous(event.version)
            raise
        encoding.fill(everything, values)
        self._adapt(values.values())
        for revision, of in missing.items():
            if any(row not in values for row in of):
                moments = [moment for moment in stretch.moments if moment.revision < revision]
                return Stretch(stretch.first, revision - 1, moments)
        return stretch

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

    def _recall(self, first: int, last: int, wants: Callable[[bytes], bool]) -> Stretch:
        recent = self._store.index.recent
        at = bisect_left(recent, first << SUB_BITS, key=_id)
        end = bisect_left(recent, (last + 1) << SUB_BITS, key=_id)
        scan_end = min(end, at + _MAX_SCAN)
        moments: list[Moment] = []
        found, size, revision = 0, 0, last
        while at < scan_end and found < self._rows and size < _TARGET_BYTES:
            revision = recent[at].mod_revision
            events = []
            while at < end and recent[at].mod_revision == revision:
                version = recent[at]
                at += 1
                if wants(version.key):
                    events.append(Event(Change(version, self._store.previous(version))))
            if events:
                moments.append(Moment(revision, events, 0))
                found += len(events)
                size += sum(event.size for event in events)
        return Stretch(first, last if at == end else revision, moments)

    def _adapt(self, values: Collection[bytes]) -> None:
        """Take as many rows next time as make about `_TARGET_BYTES`, at most twice as many.

        How large values are is known only when they are here, and a page is there as a whole.
        """
        if values:
            mean = 1 + sum(map(len, values)) // len(values)
            most = min(MAX_REVISIONS, 2 * self._rows, _TARGET_BYTES // mean)
            self._rows = max(_MIN_ROWS, most)
