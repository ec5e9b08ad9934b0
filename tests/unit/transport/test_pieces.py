"""An answer in pieces: nothing is lost, and no piece is larger than it has to be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.transport.api import PIECE_BYTES, Pieces, settled

SIZES = st.integers(0, 100) | st.integers(0, 3 * PIECE_BYTES)


def parts_of(sizes: list[int]) -> list[bytes]:
    return [bytes((number % 256,)) * size for number, size in enumerate(sizes)]


@given(st.lists(SIZES, max_size=40))
def test_pieces_hold_all_parts_in_order_and_are_bounded(sizes: list[int]) -> None:
    parts = parts_of(sizes)
    whole = b"".join(parts)
    pieces = Pieces(parts)
    taken = []
    while pieces:
        left = len(pieces)
        taken.append(pieces.take())
        assert len(pieces) == left - len(taken[-1])
    assert b"".join(taken) == whole
    assert all(len(piece) >= PIECE_BYTES for piece in taken[:-1])
    assert all(len(piece) < PIECE_BYTES + max(sizes) for piece in taken)
    assert pieces.take() == b""


def test_a_large_part_is_a_piece_that_is_not_copied() -> None:
    large = bytes(2 * PIECE_BYTES)
    pieces = Pieces((large, large, b"end"))
    assert pieces.take() is large
    assert pieces.take() is large
    assert pieces.take() == b"end"


@given(st.lists(SIZES, max_size=20), st.integers(0, 3))
def test_what_is_left_can_be_joined(sizes: list[int], before: int) -> None:
    parts = parts_of(sizes)
    pieces = Pieces(parts)
    taken = b"".join(pieces.take() for _ in range(before))
    assert taken + pieces.join() == b"".join(parts)
    assert not pieces


async def test_who_wants_an_answer_as_a_whole_gets_bytes() -> None:
    async def later() -> Pieces:
        return Pieces((b"c", b"d"))

    assert await settled(Pieces((b"a", b"b"))) == b"ab"
    assert await settled(later()) == b"cd"
