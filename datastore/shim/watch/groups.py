"""Watchers that get the same bytes, found by key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from datastore.shim.watch.events import Event
from datastore.shim.watch.index import RangeIndex
from datastore.shim.watch.watcher import Options, Watcher


class _Same(NamedTuple):
    key: bytes
    end: bytes
    options: Options


class Group:
    """Watchers of one range with equal options."""

    __slots__ = ("end", "key", "no_delete", "no_put", "prev_kv", "watchers")

    def __init__(self, same: _Same) -> None:
        self.key = same.key
        self.end = same.end
        self.prev_kv, self.no_put, self.no_delete = same.options
        self.watchers: dict[Watcher, None] = {}


class Groups:
    """A set of watchers: all that are synced, or all that are not."""

    def __init__(self) -> None:
        self._groups: dict[_Same, Group] = {}
        self._index: RangeIndex[Group] = RangeIndex()

    def add(self, watcher: Watcher) -> None:
        """Add a watcher that is in no group."""
        same = _same(watcher)
        group = self._groups.get(same)
        if group is None:
            group = self._groups[same] = Group(same)
            self._index.add(group)
        group.watchers[watcher] = None
        watcher.group = group

    def remove(self, watcher: Watcher) -> None:
        """Remove a watcher that is in."""
        group = watcher.group
        assert group is not None
        watcher.group = None
        del group.watchers[watcher]
        if not group.watchers:
            self._index.remove(group)
            del self._groups[_same(watcher)]

    def want(self, key: bytes) -> bool:
        """Return whether anyone watches the key."""
        return bool(self._index.find(key))

    def gather(self, events: Sequence[Event]) -> dict[Group, list[bytes] | None]:
        """Return each group's encoded events, None where a value is missing. Hot."""
        find = self._index.find
        gathered: dict[Group, list[bytes] | None] = {}
        for event in events:
            version = event.version
            tombstone = version.version == 0
            bare = full = None
            for group in find(version.key):
                if group.no_delete if tombstone else group.no_put:
                    continue
                if group.prev_kv:
                    part = full = full or event.encode(prev_kv=True)
                else:
                    part = bare = bare or event.encode(prev_kv=False)
                if part is None:
                    gathered[group] = None
                elif group not in gathered:
                    gathered[group] = [part]
                elif (parts := gathered[group]) is not None:
                    parts.append(part)
        return gathered


def _same(watcher: Watcher) -> _Same:
    return _Same(watcher.spec.key, watcher.spec.end, watcher.options)
