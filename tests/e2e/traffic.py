"""Clients of kube-apiserver that write, watch and list for long, and whether they saw the same."""

from __future__ import annotations

import json
import random
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tests.e2e.controlplane import ControlPlane

NAMES = 60
"""Of the objects of one writer, about half of which are there."""
PACE_SECONDS = 0.01
VALUE_BYTES = 8_000
"""So many that what the shim keeps of recent events is full soon, and grows no more."""
PAGE = 25
LAST = "last"
"""The object that ends every watch."""
# What is compressed comes in whole blocks: late.
PLAIN = {"Accept-Encoding": "identity"}
MERGE = {"Content-Type": "application/merge-patch+json"}


class Resource(NamedTuple):
    """What is written: where, and which field of which part of an object changes."""

    path: str
    part: str
    field: str

    def content(self, state: int) -> dict[str, Any]:
        """Return an object's content; no two states are the same."""
        return {self.part: {self.field: f"{state} ".ljust(VALUE_BYTES, ".")}}


class Change(NamedTuple):
    """A change of one object."""

    kind: str
    name: str
    revision: int
    """Its resourceVersion; 0 where the API server does not tell, of a delete."""


State = dict[str, int]
"""The resourceVersion of each object by name."""


def revision_of(found: Mapping[str, Any]) -> int:
    """Return the resourceVersion of an object or a list."""
    return int(found["metadata"]["resourceVersion"])


class Writer:
    """Changes objects of its own one after the other; every write has to be accepted."""

    def __init__(self, plane: ControlPlane, resource: Resource, number: int) -> None:
        self._plane = plane
        self._resource = resource
        self._number = number
        self._chance = random.Random(number)
        self._objects: dict[str, Any] = {}
        self._state = 0
        self.history: list[Change] = []
        """What was acknowledged."""

    def run(self, stop: threading.Event) -> None:
        """Write until it is enough."""
        while not stop.wait(PACE_SECONDS):
            name = f"w{self._number}-{self._chance.randrange(NAMES)}"
            if name not in self._objects:
                self.create(name)
            else:
                self._chance.choice((self._update, self._patch, self._patch, self._delete))(name)

    def create(self, name: str) -> None:
        """Create an object."""
        content = {"metadata": {"name": name}, **self._content()}
        self._changed("ADDED", self._plane.create(self._resource.path, content))

    def _update(self, name: str) -> None:
        content = {**self._objects[name], **self._content()}
        self._changed("MODIFIED", self._sent("PUT", name, json=content))

    def _patch(self, name: str) -> None:
        patch = json.dumps(self._content())
        self._changed("MODIFIED", self._sent("PATCH", name, content=patch, headers=MERGE))

    def _delete(self, name: str) -> None:
        self._sent("DELETE", name)
        del self._objects[name]
        self.history.append(Change("DELETED", name, 0))

    def _content(self) -> dict[str, Any]:
        self._state += 1
        return self._resource.content(self._state)

    def _sent(self, method: str, name: str, **more: Any) -> Any:
        answer = self._plane.api.request(method, f"{self._resource.path}/{name}", **more)
        assert answer.status_code == 200, (method, name, answer.text)
        return answer.json()

    def _changed(self, kind: str, made: Any) -> None:
        name = made["metadata"]["name"]
        self._objects[name] = made
        self.history.append(Change(kind, name, revision_of(made)))


class Watcher:
    """Watches from one position on, over as many watches as it takes.

    Args:
        plane: whose API server.
        path: what is watched.
        position: the resourceVersion after which it begins.
        patience: seconds that the API server leaves a watch at most, events that we do; nothing
            for a watch that nobody ends.
    """

    def __init__(
        self, plane: ControlPlane, path: str, position: int, patience: tuple[int, int] | None
    ) -> None:
        self._plane = plane
        self._path = path
        self._position = position
        self._patience = patience
        self._chance = random.Random(position)
        self.seen: list[Change] = []
        self.watches = 0
        self.bookmarks = 0

    def run(self, stop: threading.Event) -> None:
        """Watch until the last object has come, or it is in vain to wait for it."""
        while not self._has_seen_last() and not stop.is_set():
            self._watch(stop)

    def follow(self, events: int) -> None:
        """Watch for so many events, or until the last object."""
        self._watch(threading.Event(), events)

    def _has_seen_last(self) -> bool:
        return bool(self.seen) and self.seen[-1].name == LAST

    def _watch(self, stop: threading.Event, events: int | None = None) -> None:
        self.watches += 1
        asked: dict[str, Any] = {
            "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": self._position,
        }  # fmt: skip
        if self._patience:
            asked["timeoutSeconds"] = self._chance.randint(2, self._patience[0])
            events = events or self._chance.randint(1, self._patience[1])
        enough = None if events is None else len(self.seen) + events
        with self._plane.api.stream("GET", self._path, params=asked, headers=PLAIN) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                self._take(json.loads(line))
                if len(self.seen) == enough or self._has_seen_last() or stop.is_set():
                    return

    def _take(self, event: Any) -> None:
        kind, found = event["type"], event["object"]
        assert kind in {"ADDED", "MODIFIED", "DELETED", "BOOKMARK"}, event
        revision = revision_of(found)
        if kind == "BOOKMARK":
            assert revision >= self._position, event
            self.bookmarks += 1
        else:
            assert revision > self._position, event
            self.seen.append(Change(kind, found["metadata"]["name"], revision))
        self._position = revision


class Lister:
    """Lists in pages, and then watches from there for a while, again and again."""

    def __init__(self, plane: ControlPlane, path: str) -> None:
        self._plane = plane
        self._path = path
        self.lists: list[tuple[int, State]] = []
        self.follows: list[tuple[int, list[Change]]] = []

    def run(self, stop: threading.Event) -> None:
        """List and watch until it is enough."""
        while not stop.wait(1):
            revision, state = list_in_pages(self._plane, self._path)
            self.lists.append((revision, state))
            watcher = Watcher(self._plane, self._path, revision, (5, 10))
            watcher.follow(10)
            self.follows.append((revision, watcher.seen))


def list_in_pages(plane: ControlPlane, path: str) -> tuple[int, State]:
    """Return the resourceVersion of a list and what is in it; every page is of one moment."""
    state: State = {}
    revisions = set()
    token = ""
    while not revisions or token:
        answer = plane.api.get(path, params={"limit": PAGE, "continue": token})
        if answer.status_code == 410:
            # A compaction overtook the pages: clients begin anew.
            return list_in_pages(plane, path)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        revisions.add(revision_of(page))
        found = {item["metadata"]["name"]: revision_of(item) for item in page["items"]}
        assert not found.keys() & state.keys()
        state |= found
        token = page["metadata"].get("continue", "")
    (revision,) = revisions
    return revision, state


def replay(changes: Iterable[Change], state: State) -> State:
    """Return what the changes make of a state."""
    after = dict(state)
    for change in changes:
        assert (change.kind == "ADDED") == (change.name not in after), change
        if change.kind == "DELETED":
            del after[change.name]
        else:
            after[change.name] = change.revision
    return after


def by_name(changes: Iterable[Change]) -> Mapping[str, Sequence[Change]]:
    """Return the history of each object, as its writer knows it."""
    found: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        revision = 0 if change.kind == "DELETED" else change.revision
        found[change.name].append(change._replace(revision=revision))
    return found


class Course:
    """All changes of a resource, as one watcher has seen them, and the states they led to."""

    def __init__(self, begin: State, changes: Sequence[Change]) -> None:
        self._begin = begin
        self._changes = changes
        self._revisions = [change.revision for change in changes]

    def check_lists(self, lists: Iterable[tuple[int, State]]) -> None:
        """Fail unless each list is the state at its resourceVersion."""
        at, state = 0, self._begin
        for revision, listed in lists:
            end = bisect_right(self._revisions, revision)
            state = replay(self._changes[at:end], state)
            at = end
            assert listed == state, revision

    def check_follows(self, follows: Iterable[tuple[int, list[Change]]]) -> None:
        """Fail unless each watch has told of the changes behind where it began."""
        for revision, seen in follows:
            at = bisect_right(self._revisions, revision)
            assert seen == self._changes[at : at + len(seen)], revision

    def check_writers(self, writers: Iterable[Writer]) -> None:
        """Fail unless it is what was acknowledged, and nothing else."""
        acknowledged = by_name(self._histories(writers))
        seen = by_name(change for change in self._changes if change.name not in self._begin)
        assert seen == acknowledged

    def _histories(self, writers: Iterable[Writer]) -> Iterator[Change]:
        for writer in writers:
            yield from writer.history
