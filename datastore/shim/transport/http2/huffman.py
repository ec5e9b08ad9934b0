"""Decode the Huffman code of RFC 7541, four bits at a step.

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


def _tables() -> tuple[list[int], list[int], list[bool]]:
    """Return, for each state and four bits, the next state and the octet or -1; then the ends.

    A state is 16 times the number of an inner node, so that four bits are added to it. The last
    state is where a string with EOS in it ends up for good.
    """
    nodes = _tree()
    lost = len(nodes)
    following: list[int] = []
    octets: list[int] = []
    for start in range(lost):
        for bits in range(16):
            node, octet = start, -1
            for shift in (3, 2, 1, 0):
                child = nodes[node][bits >> shift & 1]
                if child == ~_EOS:
                    node = lost
                    break
                if child < 0:
                    octet, child = ~child, 0
                node = child
            following.append(node << 4)
            octets.append(octet)
    following += [lost << 4] * 16
    octets += [-1] * 16
    ends = [False] * (lost + 1)
    node = 0
    for _ in range(8):  # padding is up to seven ones, the beginning of EOS
        ends[node] = True
        node = nodes[node][1]
    return following, octets, ends


_NEXT, _OCTET, _END = _tables()


def decode(data: bytes) -> bytes | None:
    """Return the octets, or None if `data` is no whole code: EOS, or padding that is not. Hot."""
    following, octets = _NEXT, _OCTET
    state = 0
    out = bytearray()
    for byte in data:
        step = state | byte >> 4
        octet = octets[step]
        if octet >= 0:
            out.append(octet)
        step = following[step] | byte & 15
        octet = octets[step]
        if octet >= 0:
            out.append(octet)
        state = following[step]
    return bytes(out) if _END[state >> 4] else None
