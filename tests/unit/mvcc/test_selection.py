import pytest

from datastore.etcdpb.kv_pb2 import KeyValue
from datastore.etcdpb.rpc_pb2 import RangeResponse
from datastore.shim.errors import FutureRevision
from datastore.shim.mvcc.ops import DeleteRange, LeaseGrant, Put, Range, SortOrder, SortTarget
from datastore.shim.mvcc.store import MissingValues
from tests.support.mvcc_store import ALL, Rows, found, puts


@pytest.fixture
def server():
    """a: created 3, modified 6, value 2; b: 4, 4, value 3; c: 5, 7, value 1."""
    server = Rows()
    server.write(LeaseGrant(7, 60), Put(b"gone"))
    server.write(Put(b"a"), Put(b"b", b"3", lease=7), Put(b"c"), Put(b"a", b"2"), Put(b"c", b"1"))
    server.write(Put(b"c", b"1"), DeleteRange(b"gone"))
    return server


def keys(server, **fields):
    return b"".join(found(server.read(Range(*ALL, **fields))))


def test_the_header_is_the_current_revision_even_for_an_old_one(server):
    result = server.read(Range(*ALL, revision=4))
    assert (result.revision, found(result)) == (9, [b"a", b"b", b"gone"])
    assert server.read(Range(b"nothing")).revision == 9


def test_count_knows_nothing_of_limits_and_filters(server):
    result = server.read(Range(*ALL, limit=1))
    assert (result.count, result.more, len(result.kvs)) == (3, True, 1)
    result = server.read(Range(*ALL, min_mod=8))
    assert (result.count, result.more, found(result)) == (3, False, [b"c"])


def test_more_means_that_the_limit_has_cut_something_off(server):
    assert server.read(Range(*ALL, limit=2)).more
    assert not server.read(Range(*ALL, limit=3)).more
    assert not server.read(Range(b"a", b"c", limit=2)).more
    assert not server.read(Range(*ALL, limit=-1)).more


def test_count_only_returns_no_keys_and_ignores_the_limit(server):
    result = server.read(Range(*ALL, limit=1, count_only=True))
    assert result == ([], 3, False, 9)
    assert server.read(Range(b"a", count_only=True)).count == 1


def test_a_continued_list_counts_what_is_left_at_its_revision(server):
    server.write(Put(b"b2"), DeleteRange(b"c"))
    result = server.read(Range(b"a\0", b"\0", limit=1, revision=9))
    assert (found(result), result.count, result.more) == ([b"b"], 2, True)


@pytest.mark.parametrize(
    ("target", "ascending"),
    [
        (SortTarget.KEY, b"abc"),
        (SortTarget.VERSION, b"bac"),
        (SortTarget.CREATE, b"abc"),
        (SortTarget.MOD, b"bac"),
        (SortTarget.VALUE, b"cab"),
    ],
)
def test_sorting(server, target, ascending):
    def ordered(order, **fields):
        return keys(server, sort_target=target, sort_order=order, **fields)

    assert ordered(SortOrder.ASCEND) == ordered(SortOrder.NONE) == ascending
    assert ordered(SortOrder.DESCEND) == ascending[::-1]
    assert ordered(SortOrder.DESCEND, limit=1) == ascending[-1:]
    assert ordered(SortOrder.DESCEND, keys_only=True) == ascending[::-1]


def test_without_an_order_the_limit_cuts_in_key_order_before_the_sort(server):
    """As etcd: it reads limit + 1 keys, sorts those and cuts again."""
    assert keys(server, sort_target=SortTarget.VALUE, limit=1) == b"a"
    assert keys(server, sort_target=SortTarget.VALUE, limit=2) == b"ca"


def test_filters_are_inclusive(server):
    assert keys(server, min_mod=6) == b"ac"
    assert keys(server, max_mod=6) == b"ab"
    assert keys(server, min_create=4) == b"bc"
    assert keys(server, max_create=4) == b"ab"
    assert keys(server, min_mod=5, max_mod=7, limit=1) == b"a"
    assert keys(server, max_mod=-1) == b""


def test_a_filter_on_one_key_hides_it_but_counts_it(server):
    assert server.read(Range(b"a", min_mod=7)) == ([], 1, False, 9)
    assert found(server.read(Range(b"a", min_mod=6))) == [b"a"]


def test_keys_only_leaves_out_the_value_and_since_3_7_the_lease(server):
    def only(**fields):
        (kv,) = RangeResponse.FromString(
            b"".join(server.read(Range(b"b", keys_only=True, **fields)).kvs)
        ).kvs
        return kv

    expected = KeyValue(key=b"b", create_revision=4, mod_revision=4, version=1)
    assert only() == expected
    expected.lease = 7
    assert only(sort_target=SortTarget.VALUE) == expected


def test_a_revision_that_is_not_positive_means_now(server):
    assert keys(server, revision=-5) == b"abc"
    assert found(server.read(Range(b"c", revision=-5))) == [b"c"]
    with pytest.raises(FutureRevision):
        server.read(Range(b"c", revision=10))


def test_all_missing_values_are_named_at_once_and_cached_once_fetched():
    server = Rows(cache_bytes=0)
    server.write(*puts(b"a", b"b", b"c"))
    with pytest.raises(MissingValues) as raised:
        server.store.read(Range(*ALL))
    assert raised.value.ids == [2 << 20, 3 << 20, 4 << 20]
    server.store.cache.limit = 1 << 20
    assert found(server.read(Range(*ALL))) == [b"a", b"b", b"c"]
    server.fetched.clear()
    assert found(server.read(Range(*ALL))) == [b"a", b"b", b"c"]
    assert server.fetched == []


def test_values_handed_in_are_used_even_if_the_cache_keeps_none():
    server = Rows(cache_bytes=0)
    server.write(*puts(b"a", b"b"))
    result = server.read(Range(*ALL))
    assert found(result) == [b"a", b"b"]
    assert server.fetched == [2 << 20, 3 << 20]
    by_value = Range(*ALL, sort_target=SortTarget.VALUE, sort_order=SortOrder.DESCEND)
    assert found(server.read(by_value)) == [b"b", b"a"]


def test_metadata_needs_no_values():
    server = Rows(cache_bytes=0)
    server.write(*puts(b"a", b"b"))
    server.read(Range(*ALL, keys_only=True))
    server.read(Range(*ALL, count_only=True))
    assert server.fetched == []


def test_a_selection_keeps_to_its_state_while_the_store_moves():
    server = Rows()
    server.write(*puts(b"a", b"b"))
    op = Range(*ALL)
    selection = server.store.select(op)
    server.write(DeleteRange(b"a"))
    assert found(server.store.render(op, selection)) == [b"a", b"b"]
