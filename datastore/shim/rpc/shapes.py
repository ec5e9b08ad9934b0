"""Requests of the shapes that kube-apiserver sends, decoded without message objects.

A transaction that guards one key by its revision and puts, or deletes, that one key; a put; a
range. protobuf's own objects cost several times as much as the evaluation of such a request. Each
function returns None for anything else, also for what is malformed: protobuf then decides.

What is returned needs no further check (mvcc/check.py): keys are not empty, there is one operation
a branch, and no option that could contradict another.
"""

from __future__ import annotations

from datastore.shim.mvcc.ops import (
    EQUAL,
    Compare,
    CompareTarget,
    DeleteRange,
    Put,
    Range,
    SortOrder,
    SortTarget,
    Txn,
)
from datastore.shim.mvcc.wire import read_varint

_MOD = CompareTarget.MOD
_NONE, _KEY = SortOrder.NONE, SortTarget.KEY
_GUARD = b"\x10\x02\x1a"
"""Compare: target = MOD (field 2), then the key (field 3); a result of EQUAL is left out."""
_RANGE_NUMBERS = (0x18, 0x20, 0x38, 0x40, 0x48)
"""RangeRequest: limit, revision, serializable, keys_only, count_only, in the order of `Range`."""
_INT64_STOP = 1 << 63
"""A larger number is a negative one on the wire: left to protobuf."""
_LENGTH_OCTETS = 5
"""protobuf refuses a length that takes more, however small it is."""


def decode_txn(body: bytes) -> Txn | None:  # noqa: PLR0911 - one walk over the bytes
    """Return the transaction, or None. Hot."""
    try:
        if body[0] != 0x0A:  # compare
            return None
        end, at = _end(body, 1)
        if body[at : at + 3] != _GUARD:
            return None
        last, at = _end(body, at + 3)
        key = body[at:last]
        if at == last or body[last] != 0x30:  # mod_revision
            return None
        revision, at = read_varint(body, last + 1)
        if at != end or revision >= _INT64_STOP or body[at] != 0x12:  # success
            return None
        end, at = _end(body, at + 1)
        write = _decode_write(body, at, end)
        if write is None:
            return None
        compares = (Compare(_MOD, EQUAL, key, revision),)
        if end == len(body):
            return Txn(compares, (write,), ())
        if body[end] != 0x1A:  # failure
            return None
        end, at = _end(body, end + 1)
        if end != len(body) or body[at] != 0x0A:  # request_range
            return None
        last, at = _end(body, at + 1)
        read = None if last != end else _decode_range(body, at, end)
    except IndexError:
        return None
    return None if read is None else Txn(compares, (write,), (read,))


def decode_put(body: bytes) -> Put | None:
    """Return the put, or None. Hot."""
    try:
        return _decode_put(body, 0, len(body))
    except IndexError:
        return None


def decode_range(body: bytes) -> Range | None:
    """Return the range, or None. Hot."""
    try:
        return _decode_range(body, 0, len(body))
    except IndexError:
        return None


def _decode_write(  # noqa: PLR0911 - one walk over the bytes
    body: bytes, at: int, end: int
) -> Put | DeleteRange | None:
    kind = body[at]
    last, at = _end(body, at + 1)
    if last != end:
        return None
    if kind == 0x12:  # request_put
        return _decode_put(body, at, end)
    if kind != 0x1A or body[at] != 0x0A:  # request_delete_range, key
        return None
    last, at = _end(body, at + 1)
    if at == last:
        return None
    if last == end:
        return DeleteRange(body[at:last])
    if body[last:end] == b"\x18\x01":  # prev_kv
        return DeleteRange(body[at:last], b"", prev_kv=True)
    return None


def _decode_put(body: bytes, at: int, end: int) -> Put | None:
    if body[at] != 0x0A:  # key
        return None
    last, at = _end(body, at + 1)
    key = body[at:last]
    if at == last or last >= end or body[last] != 0x12:  # value
        return None
    last, at = _end(body, last + 1)
    value = body[at:last]
    if last == end:
        return Put(key, value)
    if body[last] != 0x18:  # lease
        return None
    lease, last = read_varint(body, last + 1)
    return Put(key, value, lease) if last == end and lease < _INT64_STOP else None


def _decode_range(body: bytes, at: int, end: int) -> Range | None:
    if body[at] != 0x0A:  # key
        return None
    last, at = _end(body, at + 1)
    if at == last or last > end:
        return None
    key = body[at:last]
    if last == end:
        return Range(key)
    stop, at = b"", last
    if body[at] == 0x12:  # range_end
        last, at = _end(body, at + 1)
        stop, at = body[at:last], last
    numbers: dict[int, int] = {}
    while at < end:
        tag = body[at]
        number, at = read_varint(body, at + 1)
        if tag not in _RANGE_NUMBERS or number >= _INT64_STOP:
            return None
        numbers[tag] = number
    if at != end:
        return None
    limit, revision, *flags = (numbers.get(tag, 0) for tag in _RANGE_NUMBERS)
    return Range(key, stop, limit, revision, _NONE, _KEY, *map(bool, flags))


def _end(body: bytes, at: int) -> tuple[int, int]:
    """Read a length; return where what it measures ends, and where it begins."""
    size = body[at]
    if size < 0x80:
        return at + 1 + size, at + 1
    size, begin = read_varint(body, at)
    if begin - at > _LENGTH_OCTETS:
        raise IndexError("a length that protobuf refuses")
    return begin + size, begin
