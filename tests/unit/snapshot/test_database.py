"""The bulk writer, judged by a reader that was written from bbolt's format."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.snapshot.database import Database
from datastore.shim.snapshot.pages import PAGE_BYTES
from tests.support import bolt

if TYPE_CHECKING:
    from typing_extensions import Buffer

Items = Sequence[tuple[bytes, bytes]]


def write(buckets: Mapping[bytes, Items]) -> bolt.Database:
    file = io.BytesIO()
    database = Database(file)
    for name, items in buckets.items():
        bucket = database.bucket(name)
        for key, value in items:
            bucket.put(key, value)
        bucket.finish()
    database.finish()
    data = file.getvalue()
    assert len(data) == database.size
    return bolt.Database(data)


def read(database: bolt.Database) -> Mapping[bytes, Items]:
    """Read every bucket, and prove that there is no page that nobody reaches."""
    found = {name: database.bucket(name) for name in database.roots}
    assert database.seen == set(range(database.meta.pages))
    assert database.meta.pages * PAGE_BYTES == len(database.data)
    return found


def numbered(count: int, size: int) -> Items:
    return [(number.to_bytes(8, "big"), bytes(size)) for number in range(count)]


SMALL = PAGE_BYTES // 4
BIG = 3 * PAGE_BYTES

items = st.dictionaries(
    st.binary(min_size=1, max_size=300),
    st.integers(0, 5000).map(bytes) | st.binary(max_size=50),
    max_size=120,
).map(lambda found: sorted(found.items()))


@given(st.dictionaries(st.binary(min_size=1, max_size=20), items, max_size=6))
def test_what_is_written_is_read(buckets):
    assert read(write(buckets)) == buckets


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 84, 85, 170, 171, 510, 511, 512, 30_000])
@pytest.mark.parametrize("size", [0, SMALL])
def test_any_number_of_keys_makes_a_tree(count, size):
    expected = {b"key": numbered(count, size)}
    assert read(write(expected)) == expected


def test_trees_have_as_many_levels_as_they_need():
    expected = [(b"%0400d" % number, bytes(PAGE_BYTES)) for number in range(2000)]
    database = write({b"key": expected})
    assert read(database) == {b"key": expected}
    assert database.stats[b"key"].depth == 5


def test_no_branch_has_an_only_child():
    """bbolt panics when it removes keys below one."""
    for leaves in range(1, 70):
        wide = [(b"%01000d" % number, bytes(PAGE_BYTES)) for number in range(leaves)]
        database = write({b"key": wide})
        assert read(database) == {b"key": wide}
        assert database.fewest_children != 1


def test_large_values_overflow_and_small_ones_do_not_share_their_page():
    expected = [(b"a", b"small"), (b"b", bytes(BIG)), (b"c", b"small"), (b"d", bytes(BIG))]
    database = write({b"key": expected})
    assert read(database) == {b"key": expected}
    assert database.stats[b"key"].leaves == 4
    assert database.stats[b"key"].overflow == 6


@pytest.mark.parametrize("size", range(PAGE_BYTES - 60, PAGE_BYTES + 4))
def test_a_value_may_fill_a_page_to_its_last_byte(size):
    expected = [(b"a", bytes(size)), (b"b", b"")]
    database = write({b"key": expected})
    assert read(database) == {b"key": expected}


def test_keys_larger_than_a_page_still_make_a_tree():
    expected = [(bytes((number,)) * 5000, b"x") for number in range(1, 60)]
    assert read(write({b"key": expected})) == {b"key": expected}


def test_both_meta_pages_hold_and_the_first_is_newer():
    database = write({b"key": numbered(10, 10)})
    assert database.meta.transaction == 2
    assert database.meta.freelist == 2


class Sink(io.BytesIO):
    """Takes everything and keeps nothing."""

    def write(self, data: Buffer) -> int:
        """Say that it is written."""
        return memoryview(data).nbytes


def test_nothing_but_a_few_pages_is_kept_in_memory():
    database = Database(Sink())
    bucket = database.bucket(b"key")
    tracemalloc.start()
    for number in range(50_000):
        bucket.put(number.to_bytes(8, "big"), bytes(100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert database.size > 20 * peak
    assert peak < 32 * PAGE_BYTES
