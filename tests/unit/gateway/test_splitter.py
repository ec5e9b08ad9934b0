"""JSON objects one after the other, in any pieces."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.gateway.codec import BadJson
from datastore.shim.gateway.splitter import Splitter

LIMIT = 1000
values = st.recursive(
    st.none() | st.integers() | st.text('ab"\\{}[]', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text('a"\\{', max_size=3), inner)
    ),
    max_leaves=5,
)
objects = st.lists(st.dictionaries(st.text(max_size=3), values, max_size=2), max_size=4)


def split(pieces: Iterable[bytes]) -> list[object]:
    splitter = Splitter(LIMIT)
    return [json.loads(text) for piece in pieces for text in splitter.feed(piece)]


@given(objects, st.text(" \t\r\n", max_size=2), st.integers(1, 9))
def test_each_object_is_found_however_the_bytes_come(
    wanted: list[object], space: str, size: int
) -> None:
    text = space.join(["", *(json.dumps(each) for each in wanted), ""]).encode()
    assert split(text[n : n + size] for n in range(0, len(text), size)) == wanted


@pytest.mark.parametrize("rest", [b"x", b"[", b'"', b"]", b"}", b"3", b"\xff"])
def test_what_is_no_object_is_refused_behind_those_that_are(rest: bytes) -> None:
    splitter = Splitter(LIMIT)
    found = splitter.feed(b'{"a":1} ' + rest)
    assert next(found) == b'{"a":1}'
    with pytest.raises(BadJson):
        next(found)


def test_an_object_has_a_largest_size() -> None:
    splitter = Splitter(LIMIT)
    with pytest.raises(BadJson):
        for _ in range(LIMIT):
            list(splitter.feed(b'{"a":'))


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_whatever_comes_is_cut_or_refused(pieces: list[bytes]) -> None:
    splitter = Splitter(LIMIT)
    try:
        for piece in pieces:
            for found in splitter.feed(piece):
                assert found.startswith(b"{")
    except BadJson:
        pass
