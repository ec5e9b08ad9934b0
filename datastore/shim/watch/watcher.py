"""A watcher: what it asks for, where its events go, and the states it passes through."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from datastore.shim.watch.groups import Group


@dataclass(frozen=True, slots=True)
class WatchSpec:
    """WatchCreateRequest. `end` as on the wire: empty = one key, NUL = from key on."""

    key: bytes
    end: bytes = b""
    start_revision: int = 0
    prev_kv: bool = False
    no_put: bool = False
    no_delete: bool = False
    progress_notify: bool = False
    fragment: bool = False


class WatchStream(Protocol):
    """Where the responses of one gRPC stream go.

    The methods only queue: they neither wait nor call the hub.
    """

    def events(self, watcher: Watcher, revision: int, body: bytes, last_part: bool) -> int:
        """Queue a response with these events and return the bytes now waiting to be sent.

        Args:
            watcher: whose events they are.
            revision: the header's revision.
            body: WatchResponse.events, framed; the same object for many watchers.
            last_part: False when more fragments of this response follow.
        """

    def progress(self, watcher: Watcher | None, revision: int) -> None:
        """Queue a progress notification, for the whole stream (watch id -1) without a watcher."""

    def canceled(self, watcher: Watcher, compact_revision: int) -> None:
        """Queue the end of a watcher that compaction has overtaken."""


class State(Enum):
    """What a watcher is doing."""

    WAITING = "waiting"  # its start revision has not been written yet
    SYNCED = "synced"  # has everything up to the hub's revision; fed by publish
    UNSYNCED = "unsynced"  # misses events from `next` on; fed from history
    DONE = "done"  # cancelled, closed or overtaken by compaction


class Step(Enum):
    """What happens to a watcher."""

    REACH = "reach"  # its start revision is being published
    MISS = "miss"  # a revision could not be handed over
    CATCH_UP = "catch up"  # history has been handed over up to the hub's revision
    END = "end"


TRANSITIONS = {
    (State.WAITING, Step.REACH): State.SYNCED,
    (State.SYNCED, Step.MISS): State.UNSYNCED,
    (State.UNSYNCED, Step.CATCH_UP): State.SYNCED,
    (State.WAITING, Step.END): State.DONE,
    (State.SYNCED, Step.END): State.DONE,
    (State.UNSYNCED, Step.END): State.DONE,
}
"""Every step a watcher can make; anything else is a fault of ours and raises KeyError."""


class Options(NamedTuple):
    """What decides the bytes of an event: watchers with equal options share them."""

    prev_kv: bool
    no_put: bool
    no_delete: bool


class Feed:
    """The hub's side of one stream.

    `blocked` is set while more bytes wait than the hub allows: its watchers then become unsynced
    at the first revision that they miss. `behind` counts the watchers that are not synced, so that
    a progress request costs the same for one watcher and for 10,000.
    """

    __slots__ = ("behind", "blocked", "progress_wanted", "stream", "watchers")

    def __init__(self, stream: WatchStream) -> None:
        self.stream = stream
        self.watchers: dict[Watcher, None] = {}
        self.behind = 0
        self.blocked = False
        self.progress_wanted = False


class Watcher:
    """One watch of one stream.

    `created_revision` is the position it was registered at: the header of its `created` response,
    from which clients resume. `next` is the first revision that it has not been given, kept while
    it is not synced. `owed` is set while it waits only because this server let go of a value that
    an event needs: compaction does not overtake it, for it would have had the event in time.
    """

    __slots__ = (
        "created_revision", "feed", "group", "id", "next", "owed", "sent", "spec", "state",
    )  # fmt: skip

    def __init__(self, watch_id: int, spec: WatchSpec, feed: Feed, position: int) -> None:
        self.id = watch_id
        self.spec = spec
        self.feed = feed
        self.created_revision = position
        self.next = spec.start_revision or position + 1
        self.sent = False
        self.owed = False
        self.group: Group | None = None
        if not spec.start_revision:
            self.state = State.SYNCED
        else:
            self.state = State.WAITING if self.next > position else State.UNSYNCED
        feed.watchers[self] = None
        feed.behind += self.state is not State.SYNCED

    @property
    def options(self) -> Options:
        """What its events look like."""
        return Options(self.spec.prev_kv, self.spec.no_put, self.spec.no_delete)

    def move(self, step: Step) -> None:
        """Make a step of `TRANSITIONS` and keep the feed's count of those behind."""
        was = self.state
        self.state = TRANSITIONS[was, step]
        self.feed.behind += (self.state in _BEHIND) - (was in _BEHIND)

    def __repr__(self) -> str:
        return f"Watcher({self.id}, {self.spec.key!r}, {self.state.value})"


_BEHIND = frozenset({State.WAITING, State.UNSYNCED})
