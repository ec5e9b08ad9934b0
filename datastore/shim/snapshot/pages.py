"""The pages of a bbolt database: what a header, a leaf, a branch and a meta page are made of.

Little endian, as bbolt writes on every machine that etcd supports. Positions of keys count from
the element that names them. A page that is larger than one page overflows into those behind it.
(bbolt: internal/common, page.go and meta.go.)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

PAGE_BYTES: Final = 4096
HEADER_BYTES: Final = 16
ELEMENT_BYTES: Final = 16
"""Of a leaf and of a branch alike, before the key."""

_BRANCH, _LEAF, _META, _FREELIST = 0x01, 0x02, 0x04, 0x10
_MAGIC, _VERSION = 0xED0CDAED, 2

_HEADER = struct.Struct("<QHHI")  # number, kind, elements, pages of overflow
_LEAF_ELEMENT = struct.Struct("<IIII")  # flags, position, size of the key, size of the value
_BRANCH_ELEMENT = struct.Struct("<IIQ")  # position, size of the key, number of the page
_META_FIELDS = struct.Struct("<IIIIQQQQQ")
_CHECKSUM = struct.Struct("<Q")


def pages_of(size: int) -> int:
    """Return how many pages `size` bytes take."""
    return -(-size // PAGE_BYTES)


def leaf_page(number: int, items: Sequence[tuple[bytes, bytes]], flags: int) -> bytes:
    """Return a leaf: keys in order, each with its value; `flags` are of every element. Hot."""
    head, body = bytearray(), list[bytes]()
    position = len(items) * ELEMENT_BYTES
    for key, value in items:
        head += _LEAF_ELEMENT.pack(flags, position, len(key), len(value))
        position += len(key) + len(value) - ELEMENT_BYTES
        body += (key, value)
    return _page(number, _LEAF, len(items), bytes(head), b"".join(body))


def branch_page(number: int, children: Sequence[tuple[bytes, int]]) -> bytes:
    """Return a branch: of each child its first key and its page's number."""
    head, body = bytearray(), list[bytes]()
    position = len(children) * ELEMENT_BYTES
    for key, child in children:
        head += _BRANCH_ELEMENT.pack(position, len(key), child)
        position += len(key) - ELEMENT_BYTES
        body.append(key)
    return _page(number, _BRANCH, len(children), bytes(head), b"".join(body))


def freelist_page(number: int) -> bytes:
    """Return the list of free pages, of which there are none."""
    return _page(number, _FREELIST, 0, b"", b"")


def meta_page(number: int, *, root: int, freelist: int, pages: int, transaction: int) -> bytes:
    """Return a meta page.

    Args:
        number: 0 or 1.
        root: The page that the tree of buckets begins at.
        freelist: The page of the free pages.
        pages: How many pages there are.
        transaction: Which of the two meta pages holds is decided by the higher one.
    """
    fields = _META_FIELDS.pack(
        _MAGIC, _VERSION, PAGE_BYTES, 0, root, 0, freelist, pages, transaction
    )
    return _page(number, _META, 0, fields, _CHECKSUM.pack(_fnv64a(fields)))


def _page(number: int, kind: int, elements: int, head: bytes, body: bytes) -> bytes:
    size = HEADER_BYTES + len(head) + len(body)
    pages = pages_of(size)
    header = _HEADER.pack(number, kind, elements, pages - 1)
    return b"".join((header, head, body, bytes(pages * PAGE_BYTES - size)))


def _fnv64a(data: bytes) -> int:
    checksum = 0xCBF29CE484222325
    for octet in data:
        checksum = (checksum ^ octet) * 0x100000001B3 & 0xFFFF_FFFF_FFFF_FFFF
    return checksum
