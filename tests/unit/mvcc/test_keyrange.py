import hypothesis.strategies as st
from hypothesis import given

from datastore.shim.mvcc.keyrange import KeyRange, prefix_end

keys = st.binary(max_size=3)
ranges = st.builds(KeyRange.from_wire, keys.filter(bool), keys)


def test_no_end_means_one_key():
    span = KeyRange.from_wire(b"a", b"")
    assert span.contains(b"a")
    assert not span.contains(b"a\0")


def test_an_end_of_nul_means_from_key_on():
    span = KeyRange.from_wire(b"a", b"\0")
    assert span.stop is None
    assert span.contains(b"\xff" * 9)
    assert not span.contains(b"Z")


def test_an_end_not_above_the_key_means_nothing():
    assert KeyRange.from_wire(b"b", b"a").is_empty
    assert KeyRange.from_wire(b"b", b"b").is_empty
    assert not KeyRange.from_wire(b"b", b"b\0").is_empty


def test_nul_to_nul_is_the_whole_keyspace():
    assert KeyRange.from_wire(b"\0", b"\0").contains(b"\0")


def test_the_end_of_a_prefix_drops_trailing_ff():
    assert prefix_end(b"ab") == b"ac"
    assert prefix_end(b"a\xff\xff") == b"b"
    assert prefix_end(b"\xff\xff") == b"\0"
    assert prefix_end(b"") == b"\0"


@given(keys, keys)
def test_a_prefix_range_holds_exactly_the_keys_with_that_prefix(prefix, key):
    assert KeyRange.prefix(prefix).contains(key) == key.startswith(prefix)


@given(ranges, ranges, keys)
def test_covering_means_that_every_key_is_inside(outer, inner, key):
    if outer.covers(inner) and inner.contains(key):
        assert outer.contains(key)


@given(ranges, ranges)
def test_ranges_intersect_where_they_share_their_higher_start(one, other):
    start = max(one.start, other.start)
    assert one.intersects(other) == (one.contains(start) and other.contains(start))
    assert one.intersects(other) == other.intersects(one)
    assert one.covers(one)
