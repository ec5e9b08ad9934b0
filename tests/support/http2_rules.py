"""What holds for everything that a server of HTTP/2 sends, whatever it was sent."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import hpack

from tests.support.http2_client import (
    DATA,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
)

HEAD = 9
FIRST_WINDOW, LARGEST_FRAME, LARGEST_ID = 65_535, 16_384, 2**31 - 1
INITIAL_WINDOW = INITIAL_WINDOW_SIZE.to_bytes(2)

Part = tuple[int, bytes, bool]
"""Kind and payload of a frame, and whether it ends its stream; of DATA all in a row are one."""


def cut_frames(said: bytes) -> tuple[list[Frame], bool]:
    """Return the whole frames behind the preface, and whether nothing is left."""
    found, at = [], len(PREFACE)
    while len(said) - at >= HEAD:
        end = at + HEAD + int.from_bytes(said[at : at + 3])
        if end > len(said):
            break
        stream = int.from_bytes(said[at + 5 : at + HEAD]) & LARGEST_ID
        found.append(Frame(said[at + 3], said[at + 4], stream, said[at + HEAD : end]))
        at = end
    return found, at == len(said)


def check_blocks(heard: Sequence[Frame]) -> None:
    """Fail unless the server's frames have the usual size, and its header blocks a meaning."""
    decoder = hpack.Decoder()
    for one in heard:
        assert len(one.payload) <= LARGEST_FRAME
        if one.kind == HEADERS:
            decoder.decode(one.payload, raw=True)


def check_windows(said: Sequence[Frame], heard: Sequence[Frame]) -> None:
    """Fail if the server has sent more than the client's windows can ever have allowed."""
    first = FIRST_WINDOW
    opened: Counter[int] = Counter({0: FIRST_WINDOW})
    for one in said:
        if one.kind == WINDOW_UPDATE:
            opened[one.stream] += one.number
        elif one.kind == SETTINGS:
            pairs = (one.payload[at : at + 6] for at in range(0, len(one.payload) - 5, 6))
            sizes = [int.from_bytes(pair[2:]) for pair in pairs if pair[:2] == INITIAL_WINDOW]
            first = max(first, *sizes, 0)
    sent: Counter[int] = Counter()
    for one in heard:
        if one.kind == DATA:
            sent.update({0: len(one.payload), one.stream: len(one.payload)})
    assert sent[0] <= opened[0]
    assert all(sent[stream] <= first + opened[stream] for stream in sent)


def check_same(one: Sequence[Frame], other: Sequence[Frame]) -> None:
    """Fail if what was cut in two ways got answers that differ in more than how far they got.

    How far an answer gets before a client resets it, or its window is spent, may differ.
    """
    assert _end_of(one) == _end_of(other)
    first, second = _by_stream(one), _by_stream(other)
    for stream in first.keys() & second.keys():
        assert _goes_on(first[stream], second[stream]), (first[stream], second[stream])


def _end_of(heard: Sequence[Frame]) -> bytes | None:
    return next((one.payload[4:] for one in heard if one.kind == GOAWAY), None)


def _by_stream(heard: Sequence[Frame]) -> dict[int, list[Part]]:
    """Return what was heard of each stream, up to where it was reset."""
    found: dict[int, list[Part]] = defaultdict(list)
    reset = set()
    for one in heard:
        parts = found[one.stream]
        if one.kind == RST_STREAM:
            reset.add(one.stream)
        elif one.kind not in {DATA, HEADERS} or one.stream in reset:
            continue
        elif one.kind == DATA and parts and parts[-1][0] == DATA:
            parts[-1] = (DATA, parts[-1][1] + one.payload, one.ends)
        else:
            parts.append((one.kind, one.payload, one.ends))
    return found


def _goes_on(one: Sequence[Part], other: Sequence[Part]) -> bool:
    """Return whether one is the beginning of the other."""
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            (cut, of), (whole, _) = sorted(((mine, one), (yours, other)), key=_size)
            return cut is of[-1] and cut[0] == whole[0] == DATA and whole[1].startswith(cut[1])
    return True


def _size(found: tuple[Part, Sequence[Part]]) -> tuple[int, bool]:
    (_, payload, ends), _ = found
    return len(payload), ends
