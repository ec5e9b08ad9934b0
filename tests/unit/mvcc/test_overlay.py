import pytest

from datastore.shim.backends.api import Alarm, Kinds
from datastore.shim.errors import (
    Compacted,
    CorruptStore,
    FutureRevision,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    LeaseTtlTooLarge,
    NoSpace,
    RequestTooLarge,
)
from datastore.shim.mvcc import overlay as overlay_module
from datastore.shim.mvcc.ops import (
    Compact,
    DeleteRange,
    Done,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    SetAlarms,
    SortOrder,
    SortTarget,
    Txn,
)
from datastore.shim.mvcc.overlay import Overlay
from datastore.shim.mvcc.store import MissingValues
from datastore.shim.mvcc.wire import value_of
from tests.support.mvcc_store import ALL, Rows, found, mod_is, puts, then


@pytest.fixture
def server():
    return Rows()


@pytest.fixture
def overlay(server):
    return Overlay(server.store, {})


def trace(overlay):
    """All that a write may leave behind."""
    return overlay.applied(), list(overlay.rows), dict(overlay._latest), overlay.kinds


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


# Leases


def test_a_lease_may_be_used_in_the_batch_that_grants_it(overlay):
    overlay.evaluate(LeaseGrant(7, 60))
    overlay.evaluate(Put(b"a", lease=7))
    assert overlay.granted == [(7, 60)]
    assert overlay.kinds == Kinds.LOG | Kinds.LEASE


def test_a_lease_is_granted_once(server):
    server.write(LeaseGrant(-7, 60))
    with pytest.raises(LeaseExists):
        server.write(LeaseGrant(-7, 60))
    with pytest.raises(LeaseExists):
        server.write(LeaseGrant(8, 60), LeaseGrant(8, 60))


def test_leases_out_of_bounds_are_refused(server):
    with pytest.raises(LeaseTtlTooLarge):
        server.write(LeaseGrant(1, 9_000_000_001))
    with pytest.raises(LeaseNotFound):
        server.write(LeaseGrant(0, 60))


def test_a_put_with_an_unknown_lease_writes_nothing(server):
    with pytest.raises(LeaseNotFound):
        server.write(Put(b"a", lease=7))
    assert server.store.revision == 1


def test_revoking_deletes_the_attached_keys_in_order_in_one_revision(server):
    server.write(LeaseGrant(7, 60), *[Put(key, lease=7) for key in (b"c", b"a", b"b")], Put(b"d"))
    assert server.write(LeaseRevoke(7)) == Done(6)
    assert [(c.version.key, c.version.mod_revision) for c in server.changes] == [
        (b"a", 6),
        (b"b", 6),
        (b"c", 6),
    ]
    assert 7 not in server.store.leases
    with pytest.raises(LeaseNotFound):
        server.write(LeaseRevoke(7))


def test_revoking_spares_keys_that_the_batch_has_moved_and_takes_those_it_has_added(server):
    server.write(LeaseGrant(7, 60), LeaseGrant(8, 60))
    server.write(*[Put(key, lease=7) for key in (b"freed", b"moved", b"deleted", b"kept")])
    server.write(
        Put(b"freed"),
        Put(b"moved", lease=8),
        DeleteRange(b"deleted"),
        Put(b"added", lease=7),
        LeaseRevoke(7),
    )
    assert found(server.read(Range(*ALL))) == [b"freed", b"moved"]
    assert server.store.leases.find(8).keys == {b"moved"}


def test_a_lease_granted_and_revoked_in_one_batch_never_was(overlay):
    overlay.evaluate(LeaseGrant(7, 60))
    overlay.evaluate(LeaseRevoke(7))
    assert (overlay.granted, overlay.dropped, overlay.empty) == ([], [], True)


def test_a_lease_revoked_and_granted_again_is_dropped_first(server):
    server.write(LeaseGrant(7, 60), Put(b"a", lease=7))
    server.write(LeaseRevoke(7), LeaseGrant(7, 30), Put(b"b", lease=7))
    info = server.store.leases.find(7)
    assert (info.ttl, info.keys) == (30, {b"b"})


# Alarms and bounds


@pytest.fixture
def full(server):
    server.write(LeaseGrant(7, 60), Put(b"a", lease=7), SetAlarms([Alarm(1, 1)]))
    return server


@pytest.mark.parametrize(
    "write",
    [
        Put(b"b"),
        then(Put(b"b")),
        Txn((), (), (Put(b"b"),)),
        then(then(Put(b"b"))),
        LeaseGrant(8, 60),
    ],
)
def test_a_full_store_takes_no_puts_and_leases(full, write):
    with pytest.raises(NoSpace):
        full.write(write)
    full.write(SetAlarms([]), write)


def test_a_full_store_still_deletes_compacts_and_revokes(full):
    full.write(Compact(2))
    assert full.write(then(Range(b"a"), DeleteRange(b"b"))).results[0].count == 1
    full.write(LeaseRevoke(7))
    full.write(DeleteRange(b"a"))
    assert full.store.key_count == 0


def test_a_corrupt_store_takes_nothing_but_alarms(full):
    full.write(SetAlarms([Alarm(1, 1), Alarm(2, 2)]))
    for write in (Put(b"a"), DeleteRange(b"a"), Txn(), LeaseRevoke(7), Compact(2)):
        with pytest.raises(CorruptStore):
            full.write(write)
    full.write(SetAlarms([]))
    assert full.store.alarms == ()


def test_setting_the_alarms_that_are_set_appends_nothing(full):
    _, overlay = full.batch(SetAlarms([Alarm(1, 1), Alarm(1, 1)]))
    assert overlay.empty
    _, overlay = full.batch(SetAlarms([]))
    assert (overlay.alarms, overlay.kinds) == ((), Kinds.ALARM)


def test_a_revision_of_more_changes_than_a_row_id_can_tell_is_refused(server, monkeypatch):
    monkeypatch.setattr(overlay_module, "MAX_CHANGES", 3)
    server.write(*puts(b"a", b"b", b"c", b"d"))
    overlay = Overlay(server.store, {})
    before = trace(overlay)
    for write in (DeleteRange(*ALL), then(DeleteRange(b"a", b"d"), Put(b"e"))):
        with pytest.raises(RequestTooLarge):
            overlay.evaluate(write)
        assert trace(overlay) == before
    assert overlay.evaluate(DeleteRange(b"a", b"d")).deleted == 3


def test_compaction_counts_within_the_batch(server):
    server.write(*puts(b"a", b"b"))
    overlay = Overlay(server.store, {})
    overlay.evaluate(Put(b"c"))
    overlay.evaluate(Compact(4))
    assert overlay.kinds == Kinds.LOG | Kinds.COMPACT
    for write in (
        Compact(4),
        then(Range(b"a", revision=3)),
        then(Range(b"a", revision=3), Put(b"x")),
    ):
        with pytest.raises(Compacted):
            overlay.evaluate(write)
    assert server.store.compacted == -1
