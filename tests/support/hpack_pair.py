"""HPACK decoders beside each other: ours and that of the `hpack` package."""

from __future__ import annotations

from collections.abc import Iterable

import hpack

from datastore.shim.transport.http2.hpack import Decoder, Field, HpackError

MAX_TABLE, MAX_LIST = 4096, 16384
STRICTER = ("an integer is cut off or takes more", "a table size update behind a field, or too")
"""What we refuse and `hpack` takes: integers of six octets and more, three size updates."""


def theirs(decoder: hpack.Decoder, block: bytes) -> list[Field] | None:
    """Return what `hpack` makes of a block, None if it refuses it."""
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except (hpack.HPACKError, IndexError):
        return None


def compare(blocks: Iterable[bytes]) -> None:
    """Fail unless the blocks of a connection mean the same to both, or are refused by both."""
    ours, other = Decoder(MAX_TABLE, MAX_LIST), hpack.Decoder(MAX_LIST)
    other.max_allowed_table_size = MAX_TABLE
    for block in blocks:
        expected = theirs(other, block)
        try:
            decoded = ours.decode(block)
        except HpackError as error:
            if expected is not None and not str(error).startswith(STRICTER):
                raise
            return
        assert decoded == expected, block
        table = [*other.header_table.dynamic_entries]
        assert ours._table[62:] == [(bytes(name), bytes(value)) for name, value in table]
