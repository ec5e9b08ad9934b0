"""From a key to the ranges that hold it, without testing every range."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

FROM_KEY = b"\x00"
"""A range end that means: every key from the first on (contract 2.2)."""

_RECENT = 32


class Ranged(Protocol):
    """Something with a key range; `end` as on the wire."""

    key: bytes
    end: bytes


T = TypeVar("T", bound=Ranged)

_start = attrgetter("key")


class RangeIndex(Generic[T]):
    """Items by key range; several items may have the same range.

    Single keys are a dictionary. Open ranges (from a key on) are sorted by start: those that hold
    a key are a head of the list. Closed ranges are an interval tree laid over a sorted list: the
    node of a slice is its middle, and knows the largest end of the slice, so a look-up visits
    O(log n + found) nodes. The tree is rebuilt when `_RECENT` additions have gathered, which are
    tested one by one until then, or when half of it has been removed.
    """

    def __init__(self) -> None:
        self._single: dict[bytes, list[T]] = {}
        self._open: list[T] = []
        self._recent: list[T] = []
        self._tree: list[T] = []
        self._starts: list[bytes] = []
        self._ends: list[bytes] = []
        self._removed: set[int] = set()

    def add(self, item: T) -> None:
        """Add an item."""
        if not item.end:
            self._single.setdefault(item.key, []).append(item)
        elif item.end == FROM_KEY:
            insort(self._open, item, key=_start)
        else:
            self._recent.append(item)

    def remove(self, item: T) -> None:
        """Remove an item that was added."""
        if not item.end:
            same = self._single[item.key]
            same.remove(item)
            if not same:
                del self._single[item.key]
        elif item.end == FROM_KEY:
            del self._open[_position(self._open, item)]
        elif item in self._recent:
            self._recent.remove(item)
        else:
            self._removed.add(id(item))
            if 2 * len(self._removed) > len(self._tree):
                self._rebuild()

    def find(self, key: bytes) -> list[T]:
        """Return the items whose range holds the key, in no order. Hot."""
        found = [] if key not in self._single else list(self._single[key])
        if self._open:
            found += self._open[: bisect_right(self._open, key, key=_start)]
        if len(self._recent) > _RECENT:
            self._rebuild()
        if self._recent:
            found += [item for item in self._recent if item.key <= key < item.end]
        if self._tree:
            self._stab(key, found)
        return found

    def _stab(self, key: bytes, found: list[T]) -> None:
        tree, ends, removed = self._tree, self._ends, self._removed
        beyond = bisect_right(self._starts, key)
        stack = [(0, len(tree))]
        while stack:
            low, end = stack.pop()
            middle = (low + end) >> 1
            if ends[middle] <= key:
                continue
            if middle < beyond:
                item = tree[middle]
                if key < item.end and not (removed and id(item) in removed):
                    found.append(item)
                if middle + 1 < end:
                    stack.append((middle + 1, end))
            if low < middle:
                stack.append((low, middle))

    def _rebuild(self) -> None:
        kept = [item for item in self._tree if id(item) not in self._removed]
        self._tree = sorted(kept + self._recent, key=_start)
        self._starts = [item.key for item in self._tree]
        self._recent = []
        self._removed = set()
        self._ends = [b""] * len(self._tree)
        self._largest_end(0, len(self._tree))

    def _largest_end(self, low: int, high: int) -> bytes:
        if low >= high:
            return b""
        middle = (low + high) >> 1
        largest = max(
            self._tree[middle].end,
            self._largest_end(low, middle),
            self._largest_end(middle + 1, high),
        )
        self._ends[middle] = largest
        return largest


def _position(items: list[T], item: T) -> int:
    at = bisect_left(items, item.key, key=_start)
    while items[at] is not item:
        at += 1
    return at
