"""Whether Go's protobuf reads a message: it refuses a few things that the parser in C takes."""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}
_MAX_NUMBER: Final = (1 << 29) - 1


class _Unreadable(Exception):
    pass


def reads(body: bytes, kind: Descriptor) -> bool:
    """Say whether each number fits 64 bits and each field has a number, all the way down."""
    try:
        return _walk(body, 0, kind, group=0) == len(body)
    except (_Unreadable, IndexError):
        return False


def _walk(body: bytes, at: int, kind: Descriptor | None, *, group: int) -> int:
    """Read fields to the end, or to that of a group, and return where that is."""
    while at < len(body) or group:
        tag, at = _varint(body, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= _MAX_NUMBER:
            raise _Unreadable
        if wire == _END_GROUP:
            if number != group:
                raise _Unreadable
            return at
        at = _skip(body, at, number, wire, kind)
    return at


def _skip(body: bytes, at: int, number: int, wire: int, kind: Descriptor | None) -> int:
    if wire == _VARINT:
        return _varint(body, at)[1]
    if wire == _GROUP:
        return _walk(body, at, None, group=number)
    if wire == _BYTES:
        size, at = _varint(body, at)
        field: FieldDescriptor | None = kind.fields_by_number.get(number) if kind else None
        if field is not None and field.message_type is not None:
            inner = body[at : at + size]
            if _walk(inner, 0, field.message_type, group=0) != len(inner):
                raise _Unreadable
    elif wire in _FIXED:
        size = _FIXED[wire]
    else:
        raise _Unreadable
    if at + size > len(body):
        raise _Unreadable
    return at + size


def _varint(body: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        octet = body[at]
        at += 1
        number |= (octet & 127) << shift
        if octet < 128:
            if number >> 64:
                break
            return number, at
    raise _Unreadable
