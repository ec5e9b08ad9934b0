"""Recorded watches checked with etcd's nine watch properties, one function a property.

A `Log` is what was committed, a `Watch` what one watcher was told. Both are plain values, so that
unit, fault and end-to-end tests can record them from anywhere. A check raises AssertionError.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

FROM_KEY = b"\x00"


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as one change left it."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One change; for a deletion `kv` has only the key and the mod revision."""

    deleted: bool
    kv: KeyValue
    prev: KeyValue | None = None

    @property
    def revision(self) -> int:
        return self.kv.mod_revision

    @property
    def is_create(self) -> bool:
        return not self.deleted and self.kv.create_revision == self.kv.mod_revision


@dataclass(frozen=True, slots=True)
class Response:
    """One response of a watch, fragments put together; without events it is progress."""

    revision: int
    events: Sequence[Event] = ()


@dataclass(slots=True)
class Watch:
    """What one watcher asked for and was told.

    `compacted` is the highest compacted revision while it ran: a previous value below it may be
    absent. `canceled_at` is the compact revision that it was canceled with, 0 if it was not.
    """

    key: bytes
    end: bytes = b""
    start_revision: int = 0
    prev_kv: bool = False
    no_put: bool = False
    no_delete: bool = False
    created_revision: int = 0
    responses: list[Response] = field(default_factory=list)
    compacted: int = 0
    canceled_at: int = 0

    @property
    def first(self) -> int:
        """The first revision that it may be told of."""
        return self.start_revision or self.created_revision + 1

    @property
    def events(self) -> list[Event]:
        return [event for response in self.responses for event in response.events]

    def asks_for(self, event: Event) -> bool:
        if event.deleted if self.no_delete else False:
            return False
        if self.no_put and not event.deleted:
            return False
        if event.revision < self.first:
            return False
        if not self.end:
            return event.kv.key == self.key
        return self.key <= event.kv.key and (self.end == FROM_KEY or event.kv.key < self.end)


class Log:
    """Every committed change in order, with what it replaced."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events: list[Event] = []
        self._live: dict[bytes, KeyValue] = {}
        self._by_id: dict[tuple[int, bytes], Event] = {}
        for event in events:
            self.append(event)

    def append(self, event: Event) -> None:
        """Add the next change; its own `prev` is ignored and worked out."""
        before = self._live.get(event.kv.key)
        event = Event(event.deleted, event.kv, before)
        if event.deleted:
            self._live.pop(event.kv.key, None)
        else:
            self._live[event.kv.key] = event.kv
        self.events.append(event)
        self._by_id[event.revision, event.kv.key] = event

    def find(self, event: Event) -> Event:
        """Return the committed change that this event tells of."""
        found = self._by_id.get((event.revision, event.kv.key))
        assert found is not None, f"never committed: {event}"
        return found

    def between(self, first: int, last: int) -> list[Event]:
        """Return the changes of these revisions, both included."""
        low = bisect_left(self.events, first, key=lambda event: event.revision)
        high = bisect_left(self.events, last + 1, key=lambda event: event.revision)
        return self.events[low:high]


def check_filter(watch: Watch, log: Log) -> None:
    """An event is of the range, the kind and the revisions asked for, and tells the truth."""
    for event in watch.events:
        assert watch.asks_for(event), f"not asked for: {event}"
        truth = log.find(event)
        assert (event.deleted, event.kv) == (truth.deleted, truth.kv)


def check_ordered(watch: Watch, log: Log) -> None:
    """Revisions never go back."""
    revisions = [event.revision for event in watch.events]
    assert revisions == sorted(revisions)


def check_unique(watch: Watch, log: Log) -> None:
    """No event comes twice."""
    seen = [(event.revision, event.kv.key) for event in watch.events]
    assert len(seen) == len(set(seen))


def check_atomic(watch: Watch, log: Log) -> None:
    """The events of one revision come in one response."""
    told: set[int] = set()
    for response in watch.responses:
        revisions = {event.revision for event in response.events}
        assert not revisions & told, f"revisions split over responses: {revisions & told}"
        told |= revisions


def check_reliable(watch: Watch, log: Log) -> None:
    """Between the first and the last event nothing that was asked for is missing."""
    got = [(event.revision, event.kv.key) for event in watch.events]
    if got:
        due = filter(watch.asks_for, log.between(got[0][0], got[-1][0]))
        assert got == [(event.revision, event.kv.key) for event in due]


def check_resumable(watch: Watch, log: Log) -> None:
    """The first event is the first one due from the start revision on."""
    if not watch.events:
        return
    first = watch.events[0]
    for event in log.between(watch.first, first.revision):
        if watch.asks_for(event):
            assert (event.revision, event.kv.key) == (first.revision, first.kv.key)
            return
    raise AssertionError(f"an event before the first that was due: {first}")


def check_bookmarkable(watch: Watch, log: Log) -> None:
    """Progress at R comes after every event up to R, and never before the start or backwards."""
    told: set[tuple[int, bytes]] = set()
    bookmark = 0
    for response in watch.responses:
        for event in response.events:
            assert event.revision > bookmark, f"{event} after progress at {bookmark}"
            told.add((event.revision, event.kv.key))
        if not response.events:
            assert response.revision >= bookmark
            assert response.revision >= watch.start_revision, "progress before the start"
            for event in log.between(watch.first, response.revision):
                if watch.asks_for(event):
                    assert (event.revision, event.kv.key) in told, f"progress before {event}"
            bookmark = response.revision


def check_previous_value(watch: Watch, log: Log) -> None:
    """`prev_kv` is the value before, absent only on a create or where it was compacted."""
    for event in watch.events:
        truth = log.find(event).prev
        if not watch.prev_kv:
            assert event.prev is None
        elif event.prev is None and truth is not None:
            assert event.revision <= watch.compacted, f"previous value is missing: {event}"
        else:
            assert event.prev == truth


def check_is_create(watch: Watch, log: Log) -> None:
    """An event is a create exactly when the key did not exist before."""
    for event in watch.events:
        truth = log.find(event)
        assert event.is_create == (not truth.deleted and truth.prev is None)


PROPERTIES: Sequence[Callable[[Watch, Log], None]] = (
    check_filter,
    check_ordered,
    check_unique,
    check_atomic,
    check_reliable,
    check_resumable,
    check_bookmarkable,
    check_previous_value,
    check_is_create,
)


def check_watch(watch: Watch, log: Log) -> None:
    """Check all nine properties."""
    for check in PROPERTIES:
        check(watch, log)


def check_complete(watch: Watch, log: Log, revision: int) -> None:
    """Check that everything asked for up to a revision has come."""
    got = [(event.revision, event.kv.key) for event in watch.events]
    due = [event for event in log.between(watch.first, revision) if watch.asks_for(event)]
    assert got == [(event.revision, event.kv.key) for event in due]


def from_key_value(message: Any) -> KeyValue:
    """Return a mvccpb.KeyValue as a value."""
    return KeyValue(
        message.key,
        message.value,
        message.create_revision,
        message.mod_revision,
        message.version,
        message.lease,
    )


def from_event(message: Any) -> Event:
    """Return a mvccpb.Event as a value."""
    prev = from_key_value(message.prev_kv) if message.HasField("prev_kv") else None
    return Event(message.type == 1, from_key_value(message.kv), prev)


def from_responses(messages: Iterable[Any]) -> list[Response]:
    """Return the event and progress responses of one watch, fragments put together."""
    responses: list[Response] = []
    pending: list[Event] = []
    for message in messages:
        if message.created or message.canceled:
            continue
        pending += map(from_event, message.events)
        if not message.fragment:
            responses.append(Response(message.header.revision, tuple(pending)))
            pending = []
    assert not pending, "the last fragment never came"
    return responses
