"""Decode the Huffman code of RFC 7541, an octet at a step.

The code is canonical: codes of one length follow each other in the order of their symbols, so
that the lengths say everything.
"""

from __future__ import annotations

_EOS = 256

# RFC 7541 appendix B: the length in bits of the code of each octet, and of EOS.
_LENGTHS = """
13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28 28 28 28 28 28 28 30 28
28 28 28 28 28 28 28 28  6 10 10 12 13  6  8 11 10 10  8 11  8  6  6  6
 5  5  5  6  6  6  6  6  6  6  7  8 15  6 12 10 13  6  7  7  7  7  7  7
 7  7  7  7  7  7  7  7  7  7  7  7  7  7  7  7  8  7  8 13 19 13 14  6
15  5  6  5  6  5  6  6  6  5  7  7  6  6  6  5  6  7  6  5  5  6  7  7
 7  7  7 15 11 14 13 28 20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23
24 24 22 23 24 23 23 23 23 21 22 23 22 23 23 24 22 21 20 22 22 23 23 21
23 22 22 24 21 22 23 23 21 21 22 21 23 22 23 23 20 22 22 22 23 22 22 23
26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25 19 21 26 27 27 26 27 24
21 21 26 26 28 27 27 27 20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23
26 27 26 26 27 27 27 27 27 28 27 27 27 27 27 26 30
"""


def _codes() -> list[tuple[int, int]]:
    """Return code and length of each symbol."""
    lengths = [int(word) for word in _LENGTHS.split()]
    codes = [(0, 0)] * len(lengths)
    code, last = -1, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code = (code + 1) << (length - last)
        last = length
        codes[symbol] = (code, length)
    return codes


def _tree() -> list[list[int]]:
    """Return the inner nodes: two children each, an inner node's number or ~symbol."""
    nodes = [[0, 0]]
    for symbol, (code, length) in enumerate(_codes()):
        node = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if nodes[node][bit] == 0:
                nodes.append([0, 0])
                nodes[node][bit] = len(nodes) - 1
            node = nodes[node][bit]
        nodes[node][code & 1] = ~symbol
    return nodes


_NODES = _tree()
_LOST = len(_NODES)
"""The state in which a string with EOS in it is for good."""
_ENDS = [False] * (_LOST + 1)


def _mark_ends() -> None:
    node = 0
    for _ in range(8):  # padding is up to seven ones, the beginning of EOS
        _ENDS[node] = True
        node = _NODES[node][1]


_mark_ends()

Step = tuple[int, bytes]
_ROWS: list[list[Step] | None] = [None] * (_LOST + 1)
"""For each state, where each octet leads and what it yields; made when a state is reached."""


def _make_row(state: int) -> list[Step]:
    row = [_walk(state, octet) for octet in range(256)]
    _ROWS[state] = row
    return row


def _walk(state: int, octet: int) -> Step:
    out = bytearray()
    for shift in range(7, -1, -1):
        if state == _LOST:
            break
        child = _NODES[state][octet >> shift & 1]
        if child == ~_EOS:
            state = _LOST
        elif child < 0:
            out.append(~child)
            state = 0
        else:
            state = child
    return state, bytes(out)


def decode(data: bytes) -> bytes | None:
    """Return the octets, or None if `data` is no whole code: EOS, or padding that is not. Hot."""
    rows = _ROWS
    state = 0
    pieces = []
    for octet in data:
        row = rows[state]
        if row is None:
            row = _make_row(state)
        state, piece = row[octet]
        pieces.append(piece)
    return b"".join(pieces) if _ENDS[state] else None
