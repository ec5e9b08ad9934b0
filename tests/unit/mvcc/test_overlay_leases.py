import pytest

from datastore.shim.backends.api import Alarm, Kinds
from datastore.shim.errors import (
    Compacted,
    CorruptStore,
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
    SetAlarm,
    Txn,
)
from datastore.shim.mvcc.overlay import Overlay
from tests.support.mvcc_store import ALL, Rows, found, puts, then, trace


@pytest.fixture
def server():
    return Rows()


@pytest.fixture
def overlay(server):
    return Overlay(server.store, {})


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
    server.write(LeaseGrant(7, 60), Put(b"a", lease=7), SetAlarm(Alarm(1, 1), active=True))
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
    full.write(SetAlarm(Alarm(1, 1), active=False), write)


def test_a_full_store_still_deletes_compacts_and_revokes(full):
    full.write(Compact(2))
    assert full.write(then(Range(b"a"), DeleteRange(b"b"))).results[0].count == 1
    full.write(LeaseRevoke(7))
    full.write(DeleteRange(b"a"))
    assert full.store.key_count == 0


def test_a_corrupt_store_takes_nothing_but_alarms(full):
    full.write(SetAlarm(Alarm(2, 2), active=True))
    for write in (Put(b"a"), DeleteRange(b"a"), Txn(), LeaseRevoke(7), Compact(2)):
        with pytest.raises(CorruptStore):
            full.write(write)
    full.write(SetAlarm(Alarm(2, 2), active=False))
    assert full.store.alarms == (Alarm(1, 1),)


def test_an_alarm_that_is_as_it_should_be_appends_nothing(full):
    raised, disarmed = SetAlarm(Alarm(1, 1), active=True), SetAlarm(Alarm(1, 1), active=False)
    _, overlay = full.batch(raised, SetAlarm(Alarm(2, 1), active=False))
    assert overlay.empty
    _, overlay = full.batch(disarmed, disarmed)
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
