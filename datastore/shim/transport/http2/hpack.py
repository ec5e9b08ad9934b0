"""HPACK (RFC 7541): a strict, bounded decoder, and an encoder that keeps no state.

The decoder takes everything a peer says as hostile: sizes are checked before memory is used. The
encoder writes literals and references to the static table, so a client needs no table for us.
"""

from __future__ import annotations

from collections.abc import Iterable

from datastore.shim.transport.http2 import huffman
from datastore.shim.transport.http2.hpack_static import STATIC

Field = tuple[bytes, bytes]

OVERHEAD = 32
"""What a field counts beside its octets, in the table and in a list (RFC 7541 §4.1)."""
INTEGER_OCTETS = 5
"""An integer that takes more is an attack: it would be above 2**28."""
SIZE_UPDATES = 2
"""A block may begin with the lowest and the last size of the table since the one before (§4.2)."""
CACHED_BLOCKS = 64
CACHED_OCTETS = 256
NO_TABLE = b"\x20"
"""A size update to zero: a peer that allows us less than 4,096 octets may want to see it first."""

_FIRST_DYNAMIC = len(STATIC) + 1


class HpackError(Exception):
    """A block that cannot be decoded; the connection cannot go on (COMPRESSION_ERROR)."""


class HeaderListTooLarge(HpackError):
    """The fields of a block are more than allowed; the connection cannot go on, see above."""


class Decoder:
    """The header blocks of one connection, each of which has to be decoded, in order.

    Args:
        max_table: octets of the dynamic table that our settings allow the peer.
        max_list: octets that the fields of one block may have, 32 added for each.

    Attributes:
        generation: changes whenever the dynamic table does. What a block means stays the same
            for one generation, if decoding it did not change that either.
    """

    def __init__(self, max_table: int = 4096, max_list: int = 16384) -> None:
        self._advertised = max_table
        self._max_table = max_table
        self._max_list = max_list
        # Static entries, then the dynamic ones, newest first: an index is an index. 0 is none.
        self._table: list[Field] = [(b"", b""), *STATIC]
        self._sizes = [len(name) + len(value) + OVERHEAD for name, value in self._table]
        self._table_size = 0
        self._cache: dict[bytes, list[Field]] = {}
        self.generation = 0

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields of a block; the list is not to be changed. Hot.

        Raises:
            HeaderListTooLarge: the fields are more than allowed.
            HpackError: the block breaks RFC 7541, or uses more of it than honest peers do.
        """
        known = self._cache.get(block)
        if known is not None:
            return known
        generation = self.generation
        fields = self._decode(block)
        if self.generation != generation:
            self._cache.clear()
        elif len(block) <= CACHED_OCTETS:
            if len(self._cache) >= CACHED_BLOCKS:
                self._cache.clear()
            self._cache[block] = fields
        return fields

    def _decode(self, block: bytes) -> list[Field]:
        """Decode a block that is not known. Hot: what nearly every field is comes first."""
        fields: list[Field] = []
        table = self._table
        sizes = self._sizes
        left = self._max_list
        position = self._size_updates(block) if block and block[0] & 0xE0 == 0x20 else 0
        end = len(block)
        while position < end:
            byte = block[position]
            if byte > 0x80:
                index = byte - 0x80
                position += 1
                if index == 0x7F:
                    index, position = _integer(block, position - 1, 0x7F)
                if index >= len(table):
                    raise HpackError(f"there is no field {index}")
                left -= sizes[index]
                fields.append(table[index])
            else:
                if 0x40 < byte < 0x7F and byte - 0x40 < len(table):
                    value, position = _string(block, position + 1)
                    field = (table[byte - 0x40][0], value)
                else:
                    field, position = self._literal(block, position)
                size = len(field[0]) + len(field[1]) + OVERHEAD
                left -= size
                fields.append(field)
                if byte >= 0x40:
                    self._add(field, size)
            if left < 0:
                raise HeaderListTooLarge(f"header list above {self._max_list} octets")
        return fields

    def _literal(self, block: bytes, position: int) -> tuple[Field, int]:
        """Return the field whose literal representation is there, and where it ends."""
        byte = block[position]
        if byte == 0x80:
            raise HpackError("there is no field 0")
        if 0x20 <= byte < 0x40:
            raise HpackError("a table size update behind a field, or too many of them")
        index, position = _integer(block, position, 0x3F if byte >= 0x40 else 0x0F)
        if index == 0:
            name, position = _string(block, position)
        elif index < len(self._table):
            name = self._table[index][0]
        else:
            raise HpackError(f"there is no name {index}")
        value, position = _string(block, position)
        return (name, value), position

    def _add(self, field: Field, size: int) -> None:
        """Add an entry to the table. Hot."""
        self.generation += 1
        if self._table_size + size > self._max_table:
            self._evict(self._max_table - size)
            if size > self._max_table:
                return
        self._table.insert(_FIRST_DYNAMIC, field)
        self._sizes.insert(_FIRST_DYNAMIC, size)
        self._table_size += size

    def _evict(self, keep: int) -> None:
        """Drop the oldest entries until the rest has at most `keep` octets, or is none."""
        while self._table_size > keep and self._table_size:
            self._table.pop()
            self._table_size -= self._sizes.pop()

    def _size_updates(self, block: bytes) -> int:
        """Take the size updates at the beginning of a block; return where the fields begin."""
        position = 0
        for _ in range(SIZE_UPDATES):
            if position >= len(block) or block[position] & 0xE0 != 0x20:
                break
            size, position = _integer(block, position, 0x1F)
            if size > self._advertised:
                raise HpackError(f"a table of {size} octets, above {self._advertised}")
            if size != self._max_table:
                self._max_table = size
                self.generation += 1
                self._evict(size)
        return position


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Return the integer whose prefix is under `mask` in the octet there, and where it ends."""
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    for octet in block[position : position + INTEGER_OCTETS - 1]:
        position += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, position
        shift += 7
    raise HpackError(f"an integer is cut off or takes more than {INTEGER_OCTETS} octets")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    """Return the string there, decoded, and where it ends. Hot."""
    if position >= len(block):
        raise HpackError("a string is missing")
    first = block[position]
    length = first & 0x7F
    position += 1
    if length == 0x7F:
        length, position = _integer(block, position - 1, 0x7F)
    end = position + length
    if end > len(block):
        raise HpackError("a string is cut off")
    data = block[position:end]
    if first < 0x80:
        return data, end
    text = huffman.decode(data)
    if text is None:
        raise HpackError("a Huffman code with EOS in it, or padded with other than up to 7 ones")
    return text, end


_INDEX: dict[Field, bytes] = {field: bytes([0x80 | n]) for n, field in enumerate(STATIC, 1)}


def _encode_integer(value: int, mask: int, flags: int) -> bytes:
    if value < mask:
        return bytes([flags | value])
    out = bytearray([flags | mask])
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_NAME: dict[bytes, bytes] = {
    name: _encode_integer(n, 0x0F, 0) for n, (name, _) in reversed(list(enumerate(STATIC, 1)))
}


def encode_literal(name: bytes, value: bytes) -> bytes:
    """Return one field as a literal that nobody has to remember. Hot."""
    known = _NAME.get(name)
    if known is None:
        known = b"\0" + _encode_integer(len(name), 0x7F, 0) + name
    return known + _encode_integer(len(value), 0x7F, 0) + value


def encode_headers(fields: Iterable[Field]) -> bytes:
    """Return a header block of fields, without a dynamic table and without Huffman code."""
    return b"".join([_INDEX.get(field) or encode_literal(*field) for field in fields])
