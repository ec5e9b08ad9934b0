import pytest

from datastore.shim.backends.api import Alarm, Head, Lease
from datastore.shim.mvcc.auth import Auth
from datastore.shim.mvcc.ops import (
    Compact,
    DeleteRange,
    LeaseGrant,
    Put,
    Range,
    SetAlarm,
    Txn,
)
from datastore.shim.mvcc.store import Applied, MissingValues, Store
from datastore.shim.mvcc.version import Version
from tests.support.mvcc_store import ALL, Rows, found, puts, then


@pytest.fixture
def server():
    return Rows()


def test_a_new_store_is_empty_at_revision_1_and_nothing_is_compacted():
    store = Store.load(Head(0, 1, -1, -1, 1, 1), (), (), (), 0, auth=Auth())
    assert (store.revision, store.compacted, store.key_count, store.alarms) == (1, -1, 0, ())
    assert store.read(Range(*ALL)) == ([], 0, False, 1)


def test_applying_returns_each_change_with_what_it_replaced(server):
    server.write(Put(b"a"), Put(b"a"), DeleteRange(b"a"), Put(b"a"))
    pairs = [
        (c.version.mod_revision, c.previous and c.previous.mod_revision) for c in server.changes
    ]
    assert pairs == [(2, None), (3, 2), (4, 3), (5, None)]


def test_what_was_replaced_is_as_of_the_revision_before(server):
    server.write(Put(b"a"))
    server.write(then(DeleteRange(b"a", b"\0"), Put(b"a")))
    delete, create = server.changes
    assert delete.previous.mod_revision == 2
    assert create.previous is None


def test_the_previous_version_is_gone_once_it_is_compacted(server):
    server.write(Put(b"a"), Put(b"a"), Put(b"a"))
    newest = server.store.index.find(b"a")
    second = server.store.previous(newest)
    assert second.mod_revision == 3
    server.write(Compact(3))
    assert server.store.previous(newest) is second
    assert server.store.previous(second) is None


def test_what_was_live_at_a_revision(server):
    server.write(Put(b"a"), DeleteRange(b"a"), Put(b"a"))
    at = server.store.at
    assert [bool(at(b"a", revision)) for revision in (1, 2, 3, 4)] == [False, True, False, True]
    server.write(Compact(3))
    assert at(b"a", 2) is None


def test_foreign_versions_are_cached_when_they_bring_their_value():
    store = Store(cache_bytes=1 << 20)
    version = Version(2 << 20, b"a", 2, 1, 0)
    version.framed = version.encode(b"v")
    store.apply(Applied(2, [version]))
    assert store.read(Range(b"a")).kvs == [version.framed]
    store.apply(Applied(3, [Version(3 << 20, b"b", 3, 1, 0)]))
    with pytest.raises(MissingValues):
        store.read(Range(b"b"))


def test_a_commit_may_change_no_keys(server):
    alarms = (Alarm(2, 1), Alarm(1, 1))
    server.write(LeaseGrant(7, 60), *(SetAlarm(alarm, active=True) for alarm in alarms))
    assert (server.changes, server.store.revision) == ([], 1)
    assert server.store.alarms == (Alarm(1, 1), Alarm(2, 1))
    assert 7 in server.store.leases


def test_revisions_need_not_be_dense():
    store = Store()
    store.apply(
        Applied(1_000_000_000, [Version(900 << 20, b"a", 5, 3, 0)], compacted=1_000_000_000)
    )
    assert (store.revision, store.compacted, store.key_count) == (10**9, 10**9, 1)
    assert store.select(Range(b"a", revision=10**9)).count == 1


def test_attachments_survive_a_reload(server):
    server.write(LeaseGrant(7, 60), Put(b"a", lease=7), Put(b"b", lease=7), Put(b"b"))
    loaded = server.reload((Lease(7, 60, None, expired=False),))
    assert loaded.leases.find(7).keys == {b"a"}
    assert loaded.leases.overdue(1e12, 10) == []


def test_a_key_of_a_lease_that_is_gone_is_attached_to_nothing(server):
    server.write(LeaseGrant(7, 60), Put(b"a", lease=7))
    loaded = server.reload()
    assert loaded.leases.ids() == []
    assert loaded.index.find(b"a").lease == 7


def test_reads_of_a_transaction_see_one_state_and_its_revision(server):
    server.write(*puts(b"a", b"b"))
    result = server.read(Txn((), (Range(b"a"), Range(*ALL, revision=2))))
    assert (result.revision, result.succeeded) == (3, True)
    assert [(found(r), r.revision) for r in result.results] == [([b"a"], 3), ([b"a"], 3)]


def test_a_write_is_no_read(server):
    with pytest.raises(TypeError, match="not a read"):
        server.read(then(Put(b"a")))
