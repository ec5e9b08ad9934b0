"""Ranges are found by key, whatever their shape and however they came and went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.watch.index import FROM_KEY, RangeIndex


class Item:
    def __init__(self, key: bytes, end: bytes = b"") -> None:
        self.key = key
        self.end = end

    def holds(self, key: bytes) -> bool:
        if not self.end:
            return key == self.key
        return self.key <= key and (self.end == FROM_KEY or key < self.end)


class Step(NamedTuple):
    key: bytes
    end: bytes
    removes: int | None


def test_a_single_key_is_found_by_that_key_only() -> None:
    index: RangeIndex[Item] = RangeIndex()
    item = Item(b"a")
    index.add(item)
    assert index.find(b"a") == [item]
    assert index.find(b"a\x00") == []


def test_a_range_holds_its_start_and_not_its_end() -> None:
    index: RangeIndex[Item] = RangeIndex()
    item = Item(b"a", b"c")
    index.add(item)
    assert index.find(b"a") == index.find(b"b\xff") == [item]
    assert index.find(b"c") == index.find(b"") == []


def test_an_open_range_holds_everything_from_its_start() -> None:
    index: RangeIndex[Item] = RangeIndex()
    item = Item(b"b", FROM_KEY)
    index.add(item)
    assert index.find(b"b") == index.find(b"\xff" * 40) == [item]
    assert index.find(b"a") == []


def test_a_removed_item_may_come_back() -> None:
    index: RangeIndex[Item] = RangeIndex()
    items = [Item(b"%03d" % n, b"%03d" % (n + 2)) for n in range(100)]
    for item in items:
        index.add(item)
    assert set(index.find(b"050")) == set(items[49:51])
    index.remove(items[50])
    assert index.find(b"050") == [items[49]]
    index.add(items[50])
    assert set(index.find(b"050")) == set(items[49:51])


class Counted(bytes):
    """A key that counts its comparisons."""

    compared = 0

    def __lt__(self, other: object) -> bool:
        Counted.compared += 1
        return bytes.__lt__(self, other)  # type: ignore[operator]

    def __le__(self, other: object) -> bool:
        Counted.compared += 1
        return bytes.__le__(self, other)  # type: ignore[operator]


@pytest.mark.parametrize("wide", [0, 3])
def test_a_look_up_among_many_ranges_tests_few(wide: int) -> None:
    index: RangeIndex[Item] = RangeIndex()
    for n in range(wide):
        index.add(Item(b"0%d" % n, b"9"))
    for n in range(10_000):
        index.add(Item(Counted(b"1%05d/" % n), Counted(b"1%05d0" % n)))
    index.find(b"0")
    Counted.compared = 0
    assert len(index.find(b"104321/pod")) == wide + 1
    assert Counted.compared < 200


keys = st.binary(max_size=2) | st.sampled_from([b"a", b"b", b"a/", b"\xff"])


@given(
    st.lists(
        st.builds(
            Step,
            keys,
            st.one_of(st.just(b""), st.just(FROM_KEY), keys),
            st.none() | st.integers(0, 50),
        ),
        max_size=120,
    ),
    st.lists(keys, min_size=1, max_size=5),
)
def test_it_finds_what_testing_every_range_finds(
    steps: Sequence[Step], wanted: Sequence[bytes]
) -> None:
    index: RangeIndex[Item] = RangeIndex()
    held: list[Item] = []
    for step in steps:
        if step.removes is not None and held:
            index.remove(held.pop(step.removes % len(held)))
        else:
            held.append(Item(step.key, step.end))
            index.add(held[-1])
        for key in wanted:
            found = index.find(key)
            assert len(found) == len(set(found))
            assert set(found) == {item for item in held if item.holds(key)}
