"""Arrays as they travel to PostgreSQL in binary, encoded faster than the driver does it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

_INT8, _BYTEA = 20, 17
_INT8_ARRAY, _BYTEA_ARRAY = 1016, 1001
_ARRAY = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)


class _Int8s(bytes):
    """A bigint[] as it travels."""


class _Byteas(bytes):
    """A bytea[] as it travels."""


class _Int8sDumper(Dumper):
    format = Format.BINARY
    oid = _INT8_ARRAY

    def dump(self, obj: Any) -> Buffer:
        return bytes(obj)


class _ByteasDumper(Dumper):
    format = Format.BINARY
    oid = _BYTEA_ARRAY

    def dump(self, obj: Any) -> Buffer:
        return bytes(obj)


def register(session: psycopg.Connection[Any]) -> None:
    """Teach a session the arrays below."""
    session.adapters.register_dumper(_Int8s, _Int8sDumper)
    session.adapters.register_dumper(_Byteas, _ByteasDumper)


def int8s(numbers: Sequence[int]) -> _Int8s:
    """Return a bigint[], encoded many times faster than by the driver. Hot."""
    count = len(numbers)
    if not count:
        return _Int8s(_ARRAY.pack(0, 0, _INT8, 0, 0)[:12])
    pairs = chain.from_iterable(zip(repeat(8), numbers, strict=False))
    body = struct.pack("!" + "iq" * count, *pairs)
    return _Int8s(_ARRAY.pack(1, 0, _INT8, count, 1) + body)


def byteas(values: Iterable[bytes | None]) -> _Byteas:
    """Return a bytea[]. Hot."""
    parts: list[bytes] = [b""]
    nulls = 0
    length = _LENGTH.pack
    for value in values:
        if value is None:
            nulls = 1
            parts += (_NULL, b"")
        else:
            parts += (length(len(value)), value)
    count = len(parts) // 2
    if not count:
        return _Byteas(_ARRAY.pack(0, 0, _BYTEA, 0, 0)[:12])
    parts[0] = _ARRAY.pack(1, nulls, _BYTEA, count, 1)
    return _Byteas(b"".join(parts))
