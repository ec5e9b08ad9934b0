import pytest

from datastore.shim.backends.api import Kinds
from datastore.shim.errors import (
    Compacted,
    FutureRevision,
    KeyNotFound,
    LeaseNotFound,
)
from datastore.shim.mvcc.ops import (
    Compact,
    DeleteRange,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    SortOrder,
    SortTarget,
    Txn,
)
from datastore.shim.mvcc.overlay import Overlay
from datastore.shim.mvcc.store import MissingValues
from datastore.shim.mvcc.wire import value_of
from tests.support.mvcc_store import ALL, Rows, found, mod_is, puts, then, trace


@pytest.fixture
def server():
    return Rows()


@pytest.fixture
def overlay(server):
    return Overlay(server.store, {})


# Revisions


def test_an_empty_store_is_at_revision_1_and_the_first_write_is_2(server, overlay):
    assert overlay.revision == 1
    assert overlay.empty
    assert overlay.evaluate(Put(b"a")).revision == 2


def test_each_write_of_a_batch_takes_its_own_revision_and_sees_those_before(overlay):
    assert overlay.evaluate(Put(b"a", b"1")).revision == 2
    result = overlay.evaluate(Put(b"a", b"1", prev_kv=True))
    assert (result.revision, value_of(result.prev)) == (3, b"1")
    assert [(v.mod_revision, v.version) for v in overlay.applied().versions] == [(2, 1), (3, 2)]
    assert overlay.kinds == Kinds.LOG


def test_changes_of_one_write_share_its_revision(overlay):
    overlay.evaluate(then(*puts(b"c", b"a", b"b")))
    rows = overlay.rows
    assert [(row.meta.id & 0xFFFFF, row.meta.key) for row in rows] == [
        (0, b"c"),
        (1, b"a"),
        (2, b"b"),
    ]
    assert {row.meta.id >> 20 for row in rows} == {2}


def test_what_changes_nothing_takes_no_revision(overlay):
    overlay.evaluate(Put(b"a"))
    for write in (
        DeleteRange(b"x"),
        DeleteRange(b"x", b"\0"),
        Txn(),
        then(DeleteRange(b"x"), Range(b"a")),
        Txn((mod_is(b"a", 9),), (Put(b"a"),)),
        LeaseGrant(1, 10),
        LeaseRevoke(1),
        Compact(1),
    ):
        assert overlay.evaluate(write).revision == 2
    assert overlay.revision == 2


def test_a_key_made_again_starts_a_new_generation(server):
    server.write(Put(b"a"), Put(b"a"), DeleteRange(b"a"), Put(b"a"))
    version = server.store.index.find(b"a")
    assert (version.create_revision, version.version) == (5, 1)


def test_a_delete_reports_its_keys_in_order(server):
    server.write(*puts(b"b", b"a", b"c"))
    result = server.write(DeleteRange(b"a", b"c", prev_kv=True))
    assert (result.revision, result.deleted) == (5, 2)
    assert [value_of(prev) for prev in result.prevs] == [b"value of a", b"value of b"]
    assert server.write(DeleteRange(b"a", prev_kv=True)).prevs == []


def test_a_tombstone_is_stored_without_anything_but_its_key(server, overlay):
    server.write(Put(b"a"))
    overlay = Overlay(server.store, {})
    overlay.evaluate(DeleteRange(b"a"))
    (row,) = overlay.rows
    assert row == ((3 << 20, 0, 0, 0, b"a"), None)


# Transactions


def test_the_creation_of_kubernetes(server):
    create = Txn((mod_is(b"a", 0),), (Put(b"a", b"v"),))
    assert server.write(create) == (2, True, ((2, None),))
    assert server.write(create) == (2, False, [])


def test_the_update_of_kubernetes(server):
    server.write(Put(b"a", b"1"))
    update = Txn((mod_is(b"a", 2),), (Put(b"a", b"2"),), (Range(b"a"),))
    assert server.write(update) == (3, True, ((3, None),))
    failed = server.write(update)
    assert (failed.revision, failed.succeeded) == (3, False)
    (current,) = failed.results
    assert (current.revision, value_of(current.kvs[0])) == (3, b"2")


def test_the_deletion_of_kubernetes(server):
    server.write(Put(b"a", b"1"))
    delete = Txn((mod_is(b"a", 2),), (DeleteRange(b"a", prev_kv=True),), (Range(b"a"),))
    result = server.write(delete)
    assert (result.revision, result.results[0].revision, result.results[0].deleted) == (3, 3, 1)


def test_compares_see_the_state_before_also_nested_ones(server):
    server.write(Put(b"a"))
    nested = Txn((mod_is(b"a", 2),), (Put(b"b"),), (Put(b"c"),))
    result = server.write(then(DeleteRange(b"a"), nested))
    assert result.results[1].succeeded
    assert found(server.read(Range(*ALL))) == [b"b"]


def test_a_range_sees_what_its_transaction_has_done_and_says_so(server):
    server.write(*puts(b"a", b"b"))
    before, deleted, after, old = server.write(
        then(Range(*ALL), DeleteRange(b"a"), Range(*ALL, limit=1), Range(*ALL, revision=2))
    ).results
    assert (before.revision, found(before)) == (3, [b"a", b"b"])
    assert deleted.revision == 4
    assert (after.revision, found(after), after.count) == (4, [b"b"], 1)
    assert (old.revision, found(old)) == (4, [b"a"])


def test_headers_count_from_the_first_change_on(server):
    results = server.write(
        then(DeleteRange(b"x"), Range(b"x"), Put(b"a"), DeleteRange(b"x"))
    ).results
    assert [result.revision for result in results] == [1, 1, 2, 2]


def test_the_header_of_a_nested_answer_is_empty_but_its_operations_have_theirs(server):
    (inner,) = server.write(then(then(Put(b"a")))).results
    assert (inner.revision, inner.succeeded, inner.results[0].revision) == (0, True, 2)


def test_a_key_deleted_and_put_in_one_transaction_starts_again(server):
    """The checks let this through only by way of "from key on"."""
    server.write(Put(b"a"), Put(b"a"))
    server.write(then(DeleteRange(b"a", b"\0"), Put(b"a")))
    version = server.store.index.find(b"a")
    assert (version.create_revision, version.version, version.id & 0xFFFFF) == (4, 1, 1)


@pytest.mark.parametrize(
    ("op", "error"),
    [
        (Put(b"b", lease=9), LeaseNotFound),
        (Put(b"x", ignore_value=True), KeyNotFound),
        (Put(b"x", ignore_lease=True), KeyNotFound),
        (Range(b"a", revision=9), FutureRevision),
        (Range(b"a", revision=1), Compacted),
        (Range(b"a", revision=-5), Compacted),
    ],
)
def test_one_bad_operation_refuses_the_whole_transaction(server, op, error):
    server.write(Put(b"a"), Put(b"a"), Compact(2))
    overlay = Overlay(server.store, {})
    overlay.evaluate(Put(b"before", lease=0))
    before = trace(overlay)
    for txn in (then(op), then(Put(b"y"), op), then(Put(b"y"), then(op))):
        with pytest.raises(error):
            overlay.evaluate(txn)
        assert trace(overlay) == before
    overlay.evaluate(Txn((), (Put(b"y"),), (op,)))


def test_a_read_of_the_revision_being_made_is_one_of_the_future(server):
    with pytest.raises(FutureRevision):
        server.write(then(Put(b"a"), Range(b"a", revision=2)))


@pytest.mark.parametrize(
    "ignoring",
    [Put(b"a", ignore_value=True), Put(b"a", ignore_lease=True)],
    ids=["value", "lease"],
)
def test_keeping_what_the_same_transaction_has_deleted_is_an_error_without_effect(
    server, ignoring
):
    server.write(*puts(b"a", b"b"))
    overlay = Overlay(server.store, {})
    overlay.evaluate(Put(b"b", b"2"))
    overlay.evaluate(Put(b"b", b"3"))
    before = trace(overlay)
    with pytest.raises(KeyNotFound):
        overlay.evaluate(then(Put(b"c"), DeleteRange(b"a", b"\0"), ignoring))
    assert trace(overlay) == before
    assert value_of(overlay.find(b"b").framed or b"") == b"3"
    assert overlay.evaluate(then(Range(*ALL))).results[0].count == 2


# Keeping value and lease


def test_values_and_leases_can_be_kept(server):
    server.write(LeaseGrant(7, 60), Put(b"a", b"v", lease=7))
    server.write(Put(b"a", b"", ignore_value=True))
    assert server.rows[3 << 20].value == b"v"
    assert server.store.index.find(b"a").lease == 0
    server.write(Put(b"a", b"", lease=7, ignore_value=True))
    server.write(Put(b"a", b"w", ignore_lease=True))
    assert server.store.index.find(b"a").lease == 7
    assert server.store.leases.find(7).keys == {b"a"}


def test_a_value_to_keep_is_fetched_when_it_is_not_in_memory():
    server = Rows(cache_bytes=0)
    server.write(Put(b"a", b"v"), Put(b"b"))
    server.write(Put(b"c"), Put(b"a", ignore_value=True))
    assert server.fetched == [2 << 20]
    assert server.rows[5 << 20].value == b"v"


def test_missing_values_leave_no_trace():
    server = Rows(cache_bytes=0)
    server.write(Put(b"a", b"v"))
    overlay = Overlay(server.store, {})
    before = trace(overlay)
    with pytest.raises(MissingValues) as missing:
        overlay.evaluate(then(Put(b"b"), DeleteRange(b"a", prev_kv=True)))
    assert missing.value.ids == [2 << 20]
    assert trace(overlay) == before


# Ranges over store and batch


def ordered(overlay, **fields):
    result = overlay.evaluate(then(Range(*ALL, **fields))).results[0]
    return b"".join(found(result)), result.count, result.more


def test_a_batch_is_merged_into_what_is_committed(server):
    server.write(*puts(b"a", b"c", b"e", b"g"))
    overlay = Overlay(server.store, {})
    assert ordered(overlay) == (b"aceg", 4, False)
    for write in (Put(b"b"), DeleteRange(b"c"), Put(b"e"), Put(b"z"), DeleteRange(b"z")):
        overlay.evaluate(write)
    assert ordered(overlay) == (b"abeg", 4, False)
    assert ordered(overlay, limit=2) == (b"ab", 4, True)
    assert ordered(overlay, limit=3) == (b"abe", 4, True)
    assert ordered(overlay, limit=4) == (b"abeg", 4, False)
    latest_first = {"sort_target": SortTarget.MOD, "sort_order": SortOrder.DESCEND}
    assert ordered(overlay, **latest_first, limit=2) == (b"eb", 4, True)
    assert ordered(overlay, count_only=True) == (b"", 4, False)


def test_a_revision_inside_the_batch_can_be_read(server):
    server.write(*puts(b"a", b"b"))
    overlay = Overlay(server.store, {})
    for write in (Put(b"c"), DeleteRange(b"a"), Put(b"c"), DeleteRange(b"c")):
        overlay.evaluate(write)
    assert [ordered(overlay, revision=r)[0] for r in (2, 3, 4, 5, 6, 7)] == [
        b"a",
        b"ab",
        b"abc",
        b"bc",
        b"bc",
        b"b",
    ]
    one = [overlay.evaluate(then(Range(b"c", revision=r))).results[0] for r in (3, 4, 5, 7)]
    assert [(r.count, r.revision) for r in one] == [(0, 7), (1, 7), (1, 7), (0, 7)]
    assert found(overlay.evaluate(then(Range(b"b", revision=5))).results[0]) == [b"b"]
