import pytest

from datastore.shim.mvcc.index import CHUNK, Index
from datastore.shim.mvcc.keyrange import KeyRange
from datastore.shim.mvcc.version import Version

EVERYTHING = KeyRange(b"", None)


def put(index, revision, key, *, sub=0):
    old = index.find(key)
    create = old.create_revision if old else revision
    version = Version(revision << 20 | sub, key, create, old.version + 1 if old else 1, 0)
    index.put(version)
    return version


def delete(index, revision, key):
    index.put(Version(revision << 20, key, 0, 0, 0))


@pytest.fixture
def index():
    """a lives in 2 and 3 and from 7 on, b from 3 on, c in 5 only."""
    index = Index()
    put(index, 2, b"a")
    put(index, 3, b"b")
    delete(index, 4, b"a")
    put(index, 5, b"c")
    delete(index, 6, b"c")
    put(index, 7, b"a")
    return index


LIVE = {2: b"a", 3: b"ab", 4: b"b", 5: b"bc", 6: b"b", 7: b"ab", None: b"ab"}


@pytest.mark.parametrize("revision", LIVE)
def test_scans_and_counts_agree_at_every_revision(index, revision):
    keys = [version.key for version in index.scan(EVERYTHING, revision, 0)]
    assert b"".join(keys) == LIVE[revision]
    assert index.count(EVERYTHING, revision) == len(keys)
    assert index.count(KeyRange(b"b", b"c"), revision) == (b"b" in keys)
    for limit in (1, 2, 3):
        assert [v.key for v in index.scan(EVERYTHING, revision, limit)] == keys[:limit]


def test_history_is_kept_only_for_keys_with_more_than_one_version(index):
    assert set(index.history) == {b"a", b"c"}


def test_finding_at_a_revision_before_the_key_was_made_gives_nothing(index):
    assert index.find_at(b"b", 2) is None
    assert index.find_at(b"a", 1) is None
    assert index.find_at(b"nothing", 5) is None


def test_the_last_change_of_a_revision_is_what_it_left():
    index = Index()
    put(index, 2, b"a")
    second = put(index, 2, b"a", sub=1)
    assert index.find_at(b"a", 2) is second


def test_a_limited_scan_reads_on_over_dead_keys():
    index = Index()
    total = 3 * CHUNK
    for number in range(total):
        put(index, number + 2, b"%06d" % number)
    for number in range(total - 1):
        delete(index, total + number + 2, b"%06d" % number)
    assert [v.key for v in index.scan(EVERYTHING, None, 1)] == [b"%06d" % (total - 1)]
    assert index.count(EVERYTHING, None) == 1
    assert index.count(EVERYTHING, total + 1) == total


def test_a_count_long_ago_looks_at_a_small_range_instead_of_all_changes():
    index = Index()
    put(index, 2, b"a")
    for revision in range(3, 53):
        (delete if index.find(b"b") else put)(index, revision, b"b")
    index.births = Unread(index.births)
    assert index.count(KeyRange(b"a", b"b"), 2) == 1
    assert index.births.slices == 0


class Unread(list):
    slices = 0

    def __getitem__(self, item):
        self.slices += isinstance(item, slice)
        return super().__getitem__(item)


def test_a_range_that_ends_before_it_starts_holds_nothing(index):
    backwards = KeyRange(b"c", b"a")
    assert index.scan(backwards, None, 0) == []
    assert index.count(backwards, 3) == 0


def test_a_tombstone_of_an_unknown_key_is_dead_and_no_more():
    index = Index()
    delete(index, 5, b"a")
    assert (index.count(EVERYTHING, None), list(index.dead), index.births) == (0, [b"a"], [])


def test_a_key_is_forgotten_with_its_history(index):
    index.forget(b"c")
    index.forget(b"b")
    assert list(index.keys) == [b"a"]
    assert list(index.dead) == []


def test_loading_gives_the_index_that_was(index):
    metas = sorted(
        v.meta for k, last in index.latest.items() for v in index.history.get(k, [last])
    )
    loaded = Index.load([metas[:1], metas[1:]], -1)
    for revision, live in LIVE.items():
        keys = b"".join(v.key for v in loaded.scan(EVERYTHING, revision, 0))
        assert keys == live
        assert loaded.count(EVERYTHING, revision) == len(keys)
