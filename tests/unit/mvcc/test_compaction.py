import pytest

from datastore.shim.backends.api import to_row_id
from datastore.shim.errors import Compacted, FutureRevision
from datastore.shim.mvcc.ops import Compact, DeleteRange, Put, Range
from tests.support.mvcc_store import ALL, Rows, found, puts, then


def rows(*revisions):
    return [to_row_id(revision, 0) for revision in revisions]


def test_the_newest_version_at_or_below_stays_with_all_above():
    server = Rows()
    server.write(Put(b"a"), Put(b"a"), Put(b"a"), Put(b"a"))
    server.write(Compact(4))
    assert server.store.collect(4) == rows(2, 3)
    assert found(server.read(Range(b"a", revision=4))) == [b"a"]


def test_a_tombstone_below_goes_with_its_key():
    server = Rows()
    server.write(Put(b"a"), DeleteRange(b"a"), Put(b"b"), Compact(4))
    assert server.store.collect(4) == rows(2, 3)
    assert server.store.key_count == 1
    assert list(server.store.index.keys) == [b"b"]


def test_a_tombstone_exactly_at_the_revision_stays_till_the_next_compaction():
    server = Rows()
    server.write(Put(b"a"), DeleteRange(b"a"), Put(b"b"), Compact(3))
    assert server.store.collect(3) == rows(2)
    server.write(Compact(4))
    assert server.store.collect(4) == rows(3)


def test_a_key_made_again_after_such_a_tombstone_keeps_its_new_life():
    server = Rows()
    server.write(Put(b"a"), DeleteRange(b"a"), Put(b"a"), Compact(3))
    server.write(Compact(4))
    assert server.store.collect(4) == rows(2, 3)
    assert found(server.read(Range(b"a"))) == [b"a"]
    assert server.store.index.history == {}


def test_a_key_changed_twice_in_one_revision_keeps_the_last():
    server = Rows()
    server.write(Put(b"a"))
    server.write(then(then(Put(b"a")), then(DeleteRange(b"a"))), Put(b"b"))
    server.write(Compact(4))
    assert server.store.collect(4) == [to_row_id(2, 0), to_row_id(3, 0), to_row_id(3, 1)]


def test_garbage_is_handed_out_up_to_the_horizon_and_once():
    server = Rows()
    server.write(Put(b"a"), Put(b"a"), Compact(3))
    server.write(Put(b"a"), Compact(4))
    while server.store.tidy(1):
        pass
    assert server.store.garbage == 2
    assert server.store.collect(2) == []
    assert server.store.collect(3) == rows(2)
    assert server.store.collect(9) == rows(3)
    assert server.store.collect(9) == []


def test_values_of_garbage_leave_the_cache():
    server = Rows()
    server.write(Put(b"a", b"x" * 100), Put(b"a"))
    before = server.store.cache.bytes
    server.write(Compact(3))
    server.store.tidy()
    assert server.store.cache.bytes < before - 100


def test_reads_below_are_refused_at_once_and_the_revision_itself_is_readable():
    server = Rows()
    server.write(*puts(b"a", b"b"), DeleteRange(b"a"), Compact(3))
    assert found(server.read(Range(*ALL, revision=3))) == [b"a", b"b"]
    with pytest.raises(Compacted) as refused:
        server.read(Range(*ALL, revision=2))
    assert refused.value.revision == 3


def test_compacting_twice_or_ahead_is_refused():
    server = Rows()
    assert server.write(Compact(0)).revision == 1
    server.write(Put(b"a"), Compact(2))
    for revision in (2, 1, -1):
        with pytest.raises(Compacted):
            server.write(Compact(revision))
    with pytest.raises(FutureRevision):
        server.write(Compact(3))


def test_what_an_interrupted_pruning_left_is_garbage_again():
    server = Rows()
    server.write(Put(b"a"), Put(b"a"), Put(b"b"), DeleteRange(b"b"), Put(b"c"), Compact(6))
    assert server.store.collect(6) == rows(2, 4, 5)
    loaded = server.reload()
    assert loaded.collect(6) == rows(2, 4, 5)
    assert list(loaded.index.keys) == [b"a", b"c"]


def test_a_compaction_goes_on_in_steps_between_reads_and_writes():
    server = Rows()
    server.write(
        *puts(b"a", b"b", b"c"), Put(b"a"), DeleteRange(b"b"), Put(b"b"), DeleteRange(b"c")
    )
    server.write(Put(b"a"), Put(b"d"), Compact(9))
    collected = []
    while server.store.tidy(1):
        collected += server.store.collect(-1)
        assert found(server.read(Range(*ALL, revision=9))) == [b"a", b"b"]
        server.write(Put(b"b"))
    assert server.store.collect(8) == []
    assert sorted(server.store.collect(9)) == rows(2, 3, 4, 5, 6, 8)
    assert server.store.key_count == len(server.store.index.keys) == 3


def test_compactions_wait_for_one_another():
    server = Rows()
    server.write(Put(b"a"), Put(b"a"), Put(b"a"), Put(b"a"), Compact(3))
    server.write(Compact(5))
    assert server.store.collect(4) == rows(2)
    assert server.store.tidy(1)
    assert not server.store.tidy(2)
    assert server.store.collect(5) == rows(3, 4)
