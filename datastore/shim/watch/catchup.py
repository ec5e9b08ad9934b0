"""The unsynced watchers, and what a stretch of history holds for each of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum

from datastore.shim.backends.api import RowId
from datastore.shim.watch.groups import Group, Groups
from datastore.shim.watch.history import HistoryReader, Stretch
from datastore.shim.watch.watcher import State, Watcher


class Past(Enum):
    """Where events are read from."""

    RECENT = "in the ring"
    OLD = "before the ring"


class Part:
    """The events of one group in a stretch, each with its revision."""

    __slots__ = ("_bodies", "_parts", "_revisions")

    def __init__(self) -> None:
        self._revisions: list[int] = []
        self._parts: list[bytes] = []
        self._bodies: dict[int, bytes] = {}

    def extend(self, revision: int, parts: Sequence[bytes]) -> None:
        """Add the events of the next revision."""
        self._revisions += [revision] * len(parts)
        self._parts += parts

    def since(self, revision: int) -> Sequence[bytes]:
        """Return the events from a revision on."""
        return self._parts[bisect_left(self._revisions, revision) :]

    def body(self, revision: int) -> bytes:
        """Return them joined: one object for all watchers that resume at the same event."""
        cut = bisect_left(self._revisions, revision)
        body = self._bodies.get(cut)
        if body is None:
            body = self._bodies[cut] = b"".join(self._parts[cut:])
        return body


class Serving:
    """A stretch of history ready to be handed over, every value known."""

    def __init__(self, last: int, receivers: Sequence[Watcher], found: dict[Group, Part]) -> None:
        self.last = last
        self.receivers = receivers
        self._found = found

    def parts(self, watcher: Watcher) -> Sequence[bytes]:
        """Return the encoded events that the watcher has not got, maybe none."""
        part = self._part(watcher)
        return part.since(watcher.next) if part is not None else ()

    def body(self, watcher: Watcher) -> bytes:
        """Return the same, joined."""
        part = self._part(watcher)
        return part.body(watcher.next) if part is not None else b""

    def _part(self, watcher: Watcher) -> Part | None:
        assert watcher.group is not None
        return self._found.get(watcher.group)


class Backlog:
    """All unsynced watchers of a hub."""

    def __init__(self) -> None:
        self._watchers: dict[Watcher, None] = {}
        self._groups = Groups()

    def __len__(self) -> int:
        return len(self._watchers)

    def add(self, watcher: Watcher) -> None:
        """Add a watcher that has become unsynced."""
        self._watchers[watcher] = None
        self._groups.add(watcher)

    def remove(self, watcher: Watcher) -> None:
        """Remove a watcher that is in."""
        del self._watchers[watcher]
        self._groups.remove(watcher)

    def lowest(self) -> int | None:
        """Return the lowest revision that anyone needs."""
        return min((watcher.next for watcher in self._watchers), default=None)

    def below(self, revision: int) -> list[Watcher]:
        """Return the watchers that need something below a revision."""
        return [watcher for watcher in self._watchers if watcher.next < revision]

    def give_up(self, revision: int) -> None:
        """Note that what is owed below a revision is gone."""
        for watcher in self.below(revision):
            watcher.owed = False

    def first(self, part: Past, ring_first: int) -> int | None:
        """Return the lowest revision that can be handed to somebody, None where nobody lags."""
        recent = part is Past.RECENT
        return min(
            (
                watcher.next
                for watcher in self._watchers
                if (watcher.next >= ring_first) is recent and not watcher.feed.blocked
            ),
            default=None,
        )

    async def prepare(self, history: HistoryReader, first: int, last: int) -> Serving:
        """Read a stretch and all values that its receivers need.

        The result holds for the current step of the loop: hand it over before waiting again.
        """
        # A watcher that comes while this waits was not asked for its keys: it has to wait as well.
        present = list(self._watchers)
        stretch = await history.read(first, last, self._groups.want)
        while True:
            receivers = [watcher for watcher in present if _is_due(watcher, stretch)]
            found, missing = self._match(stretch, {watcher.group for watcher in receivers})
            if not missing:
                return Serving(stretch.last, receivers, found)
            stretch = await history.complete(stretch, missing)

    def _match(
        self, stretch: Stretch, wanted: AbstractSet[Group | None]
    ) -> tuple[dict[Group, Part], Mapping[int, Sequence[RowId]]]:
        """Return what each group gets, and the rows that are needed first, by revision."""
        found: dict[Group, Part] = {}
        missing: dict[RowId, int] = {}
        for moment in stretch.moments:
            for group, parts in self._groups.gather(moment.events).items():
                if group not in wanted:
                    continue
                if parts is not None:
                    found.setdefault(group, Part()).extend(moment.revision, parts)
                    continue
                for event in moment.events:
                    for row in event.missing(prev_kv=group.prev_kv):
                        missing.setdefault(row, moment.revision)
        needed: dict[int, list[RowId]] = {}
        for row, revision in missing.items():
            needed.setdefault(revision, []).append(row)
        return found, needed


def _is_due(watcher: Watcher, stretch: Stretch) -> bool:
    return (
        watcher.state is State.UNSYNCED
        and stretch.first <= watcher.next <= stretch.last
        and not watcher.feed.blocked
    )
