"""A small reader of bbolt's file format, strict about everything that it looks at.

Written from the format (bbolt: internal/common), not from byre's writer, so that it can judge it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

MAGIC, VERSION = 0xED0CDAED, 2
BRANCH, LEAF, META, FREELIST = 0x01, 0x02, 0x04, 0x10
NO_FREELIST = 0xFFFF_FFFF_FFFF_FFFF
BUCKET_FLAG = 1

_HEADER = struct.Struct("<QHHI")
_META = struct.Struct("<IIIIQQQQQQ")
_LEAF = struct.Struct("<IIII")
_BRANCH = struct.Struct("<IIQ")
_BUCKET = struct.Struct("<QQ")


class Meta(NamedTuple):
    """A meta page that passed its check."""

    page_size: int
    root: int
    freelist: int
    pages: int
    transaction: int


class Stats(NamedTuple):
    """What a tree is made of."""

    depth: int
    leaves: int
    branches: int
    overflow: int


def fnv64a(data: bytes) -> int:
    """Return the hash that guards a meta page."""
    value = 0xCBF29CE484222325
    for octet in data:
        value = (value ^ octet) * 0x100000001B3 & 0xFFFF_FFFF_FFFF_FFFF
    return value


class Database:
    """A file in memory. Every page is seen once, or something is wrong."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        metas = [self._meta(number) for number in (0, 1)]
        self.meta = max(metas, key=lambda meta: meta.transaction)
        assert metas[0].page_size == metas[1].page_size
        self.seen = {0, 1}
        if self.meta.freelist != NO_FREELIST:
            self._page(self.meta.freelist, FREELIST)
        self.stats: dict[bytes, Stats] = {}
        self.fewest_children = NO_FREELIST
        """Of any branch."""
        self._stats = [0, 0, 0, 0]
        self.roots: dict[bytes, bytes] = {}
        for flags, name, value in self._tree(self.meta.root):
            assert flags == BUCKET_FLAG
            self.roots[name] = value

    def _meta(self, number: int) -> Meta:
        page = self.data[number * 4096 :][:4096]
        page_id, flags, _, _ = _HEADER.unpack_from(page)
        assert (page_id, flags) == (number, META)
        magic, version, size, _, root, _, freelist, pages, transaction, checksum = (
            _META.unpack_from(page, _HEADER.size)
        )
        assert (magic, version) == (MAGIC, VERSION)
        assert checksum == fnv64a(page[_HEADER.size : _HEADER.size + _META.size - 8])
        return Meta(size, root, freelist, pages, transaction)

    def _page(self, number: int, kind: int) -> tuple[int, bytes]:
        size = self.meta.page_size
        page_id, flags, count, overflow = _HEADER.unpack_from(self.data, number * size)
        assert page_id == number
        assert flags & kind
        ours = set(range(number, number + overflow + 1))
        assert not ours & self.seen, f"page {number} is used twice"
        assert max(ours) < self.meta.pages
        self.seen |= ours
        return count, self.data[number * size : (number + overflow + 1) * size]

    def bucket(self, name: bytes) -> list[tuple[bytes, bytes]]:
        """Return what a bucket holds, in order."""
        value = self.roots[name]
        root, _ = _BUCKET.unpack_from(value)
        self._stats = [0, 0, 0, 0]
        if root:
            rows = list(self._tree(root))
        else:
            inline = value[_BUCKET.size :]
            _, flags, count, _ = _HEADER.unpack_from(inline)
            assert flags == LEAF
            rows = list(_leaf(inline, count))
        self.stats[name] = Stats(*self._stats)
        assert all(flags == 0 for flags, _, _ in rows)
        keys = [key for _, key, _ in rows]
        assert all(a < b for a, b in pairwise(keys))
        return [(key, value) for _, key, value in rows]

    def _tree(self, number: int, depth: int = 1) -> Iterator[tuple[int, bytes, bytes]]:
        count, page = self._page(number, BRANCH | LEAF)
        self._stats[0] = max(self._stats[0], depth)
        self._stats[3] += len(page) // self.meta.page_size - 1
        if _HEADER.unpack_from(page)[1] == LEAF:
            self._stats[1] += 1
            yield from _leaf(page, count)
            return
        self._stats[2] += 1
        assert count > 0
        self.fewest_children = min(self.fewest_children, count)
        for index in range(count):
            at = _HEADER.size + index * _BRANCH.size
            position, key_size, child = _BRANCH.unpack_from(page, at)
            key = page[at + position : at + position + key_size]
            assert len(key) == key_size > 0
            rows = self._tree(child, depth + 1)
            first = next(rows)
            assert first[1] == key
            yield first
            yield from rows


def _leaf(page: bytes, count: int) -> Iterator[tuple[int, bytes, bytes]]:
    for index in range(count):
        at = _HEADER.size + index * _LEAF.size
        flags, position, key_size, value_size = _LEAF.unpack_from(page, at)
        start = at + position
        key = page[start : start + key_size]
        value = page[start + key_size : start + key_size + value_size]
        assert len(key) == key_size > 0
        assert len(value) == value_size
        yield flags, key, value
