from datastore.shim.mvcc.cache import OVERHEAD_BYTES, SWEEP_PLACES, ValueCache
from datastore.shim.mvcc.version import Version


def version(number, framed=None):
    return Version(number << 20, b"k", 1, 1, 0, framed)


def test_the_oldest_value_goes_when_the_bound_is_passed():
    cache = ValueCache(2 * (OVERHEAD_BYTES + 10))
    first, second, third = (version(n) for n in range(3))
    for each in (first, second, third):
        cache.add(each, b"x" * 10)
    assert (first.framed, second.framed, third.framed) == (None, b"x" * 10, b"x" * 10)
    assert cache.bytes == cache.limit
    assert len(cache) == 2


def test_a_value_above_the_bound_is_not_kept():
    cache = ValueCache(OVERHEAD_BYTES)
    large = version(1)
    cache.add(large, b"x")
    assert large.framed is None
    assert cache.bytes == 0


def test_adopting_counts_the_bytes_a_version_brings():
    cache = ValueCache(1000)
    cache.adopt(version(1, b"x" * 10))
    cache.adopt(version(2))
    assert cache.bytes == OVERHEAD_BYTES + 10
    cache = ValueCache(0)
    brought = version(1, b"x")
    cache.adopt(brought)
    assert brought.framed is None


def test_dropping_gives_bytes_back_once():
    cache = ValueCache(1000)
    one = version(1)
    cache.add(one, b"x")
    cache.drop(one)
    cache.drop(one)
    assert (cache.bytes, one.framed, len(cache)) == (0, None, 0)


def test_adding_again_replaces_the_value():
    cache = ValueCache(1000)
    one = version(1)
    cache.add(one, b"x" * 20)
    cache.add(one, b"x")
    assert cache.bytes == OVERHEAD_BYTES + 1


def test_a_dropped_value_is_passed_over_when_the_oldest_go():
    cache = ValueCache(2 * (OVERHEAD_BYTES + 1))
    dropped, kept, new, newest = (version(n) for n in range(4))
    cache.add(dropped, b"x")
    cache.add(kept, b"x")
    cache.drop(dropped)
    cache.add(new, b"x")
    cache.add(newest, b"x")
    assert [v.framed for v in (dropped, kept, new, newest)] == [None, None, b"x", b"x"]


def test_dropped_versions_do_not_pile_up_below_the_bound():
    cache = ValueCache(1 << 20)
    kept = version(0)
    cache.add(kept, b"x")
    for number in range(10 * SWEEP_PLACES):
        passing = version(number)
        cache.add(passing, b"x")
        cache.drop(passing)
    assert len(cache._queue) <= 2 * SWEEP_PLACES
    assert (len(cache), cache.bytes) == (1, OVERHEAD_BYTES + 1)
