"""Writes a bbolt database in one pass, from keys that come in order, in memory of a few pages.

Leaves are filled one after another. Of each page that is written its parent remembers the first
key and the number, until it is full and written itself; so children always lie before parents,
and only the two meta pages at the start are written last.
"""

from __future__ import annotations

from typing import BinaryIO, Final

from datastore.shim.snapshot.pages import (
    ELEMENT_BYTES,
    HEADER_BYTES,
    PAGE_BYTES,
    branch_page,
    freelist_page,
    leaf_page,
    meta_page,
)

_FREELIST: Final = 2
_FIRST: Final = 3
_BUCKET_FLAG: Final = 1
_MIN_CHILDREN: Final = 2
"""bbolt ends with a panic when it has to merge the only child of a branch (node.go, rebalance)."""


class Database:
    """A database under construction. Finish each bucket before the next.

    Args:
        file: Where to; empty, and at its start.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pages = _FIRST
        self._buckets: dict[bytes, int] = {}
        file.write(bytes(_FREELIST * PAGE_BYTES))
        file.write(freelist_page(_FREELIST))

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._pages * PAGE_BYTES

    def bucket(self, name: bytes) -> Bucket:
        """Begin the bucket `name`, of which there must be none yet."""
        return Bucket(self, name)

    def finish(self) -> None:
        """Write what makes a database of the buckets."""
        tree = _Tree(self, _BUCKET_FLAG)
        for name, root in sorted(self._buckets.items()):
            tree.put(name, root.to_bytes(8, "little") + bytes(8))
        root = tree.finish()
        self._file.seek(0)
        for number, transaction in ((0, 2), (1, 1)):
            self._file.write(
                meta_page(
                    number,
                    root=root,
                    freelist=_FREELIST,
                    pages=self._pages,
                    transaction=transaction,
                )
            )
        self._file.flush()

    def next_page(self) -> int:
        """Return the number of the page that is written next."""
        return self._pages

    def write(self, page: bytes) -> None:
        """Write a page with all its overflow."""
        self._file.write(page)
        self._pages += len(page) // PAGE_BYTES

    def add_bucket(self, name: bytes, root: int) -> None:
        """Note a bucket that is complete."""
        assert name not in self._buckets
        self._buckets[name] = root


class Bucket:
    """One bucket."""

    def __init__(self, database: Database, name: bytes) -> None:
        self._database = database
        self._name = name
        self._tree = _Tree(database, 0)

    def put(self, key: bytes, value: bytes) -> None:
        """Add a key, which must be above all before it and not empty."""
        self._tree.put(key, value)

    def finish(self) -> None:
        """End the bucket."""
        self._database.add_bucket(self._name, self._tree.finish())


class _Tree:
    """One B+tree. `flags` are of every element of a leaf."""

    def __init__(self, database: Database, flags: int) -> None:
        self._database = database
        self._flags = flags
        self._leaf: list[tuple[bytes, bytes]] = []
        self._leaf_bytes = HEADER_BYTES
        self._levels: list[list[tuple[bytes, int]]] = []
        self._level_bytes: list[int] = []

    def put(self, key: bytes, value: bytes) -> None:  # hot: once a row
        size = ELEMENT_BYTES + len(key) + len(value)
        if self._leaf and self._leaf_bytes + size > PAGE_BYTES:
            self._write_leaf()
        self._leaf.append((key, value))
        self._leaf_bytes += size

    def finish(self) -> int:
        """Write what is left and return the root's number."""
        if self._leaf or not self._levels:
            self._write_leaf()
        level = 0
        while level + 1 < len(self._levels) or len(self._levels[level]) > 1:
            self._write_branch(level, len(self._levels[level]))
            level += 1
        return self._levels[level][0][1]

    def _write_leaf(self) -> None:
        number = self._database.next_page()
        self._database.write(leaf_page(number, self._leaf, self._flags))
        self._adopt(0, self._leaf[0][0] if self._leaf else b"", number)
        self._leaf = []
        self._leaf_bytes = HEADER_BYTES

    def _adopt(self, level: int, key: bytes, number: int) -> None:
        """Remember a page that was written, in the level above it."""
        if level == len(self._levels):
            self._levels.append([])
            self._level_bytes.append(HEADER_BYTES)
        children = self._levels[level]
        size = ELEMENT_BYTES + len(key)
        # The last child is kept back, so that none is alone in the end.
        if len(children) > _MIN_CHILDREN and self._level_bytes[level] + size > PAGE_BYTES:
            self._write_branch(level, len(children) - 1)
        self._levels[level].append((key, number))
        self._level_bytes[level] += size

    def _write_branch(self, level: int, count: int) -> None:
        """Write the first `count` children of a level as one branch."""
        children = self._levels[level][:count]
        rest = self._levels[level] = self._levels[level][count:]
        self._level_bytes[level] = HEADER_BYTES + sum(ELEMENT_BYTES + len(key) for key, _ in rest)
        number = self._database.next_page()
        self._database.write(branch_page(number, children))
        self._adopt(level + 1, children[0][0], number)
