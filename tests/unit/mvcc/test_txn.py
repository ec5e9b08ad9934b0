import pytest

from datastore.shim.mvcc.index import Index
from datastore.shim.mvcc.ops import (
    EQUAL,
    GREATER,
    LESS,
    NOT_EQUAL,
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    Txn,
)
from datastore.shim.mvcc.txn import (
    has_put,
    holds,
    is_read_only,
    is_serializable,
    needs_space,
)
from datastore.shim.mvcc.version import Version

VERSION, CREATE, MOD, VALUE, LEASE = CompareTarget


@pytest.fixture
def index():
    """a has create revision 3, mod revision 9, version 4, lease 7, value "v"; so has b."""
    index = Index()
    for sub, key in enumerate((b"a", b"b")):
        version = Version(9 << 20 | sub, key, 3, 4, 7)
        version.framed = version.encode(b"v")
        index.put(version)
    return index


FIELDS = [(VERSION, 4), (CREATE, 3), (MOD, 9), (LEASE, 7), (VALUE, b"v")]


@pytest.mark.parametrize(("target", "actual"), FIELDS)
@pytest.mark.parametrize("end", [b"", b"c"])
def test_each_field_is_compared_with_each_result(index, target, actual, end):
    below, above = (b"u", b"w") if target is VALUE else (actual - 1, actual + 1)

    def true(value):
        return {
            result
            for result in (EQUAL, GREATER, LESS, NOT_EQUAL)
            if holds(index, Compare(target, result, b"a", value, end), {})
        }

    assert true(actual) == {EQUAL}
    assert true(below) == {GREATER, NOT_EQUAL}
    assert true(above) == {LESS, NOT_EQUAL}


@pytest.mark.parametrize("end", [b"", b"z"])
def test_a_missing_key_counts_as_zero_but_has_no_value(index, end):
    for target in (VERSION, CREATE, MOD, LEASE):
        assert holds(index, Compare(target, EQUAL, b"x", 0, end), {})
        assert not holds(index, Compare(target, GREATER, b"x", 0, end), {})
    for result in (EQUAL, NOT_EQUAL, LESS, GREATER, 9):
        assert not holds(index, Compare(VALUE, result, b"x", b"", end), {})


def test_every_key_of_a_range_has_to_satisfy(index):
    other = Version(10 << 20, b"b", 3, 5, 0)
    other.framed = other.encode(b"w")
    index.put(other)
    assert not holds(index, Compare(VERSION, EQUAL, b"a", 4, b"\0"), {})
    assert holds(index, Compare(VERSION, GREATER, b"a", 3, b"\0"), {})
    assert not holds(index, Compare(VALUE, EQUAL, b"a", b"v", b"\0"), {})


def test_an_unknown_result_is_true(index):
    assert holds(index, Compare(MOD, 9, b"a", 1), {})
    assert holds(index, Compare(VALUE, 9, b"a", b""), {})


def test_what_is_read_only():
    reads = Txn((), (Range(b"a"),), (Range(b"b"),))
    assert is_read_only(reads)
    assert is_read_only(Txn())
    for op in (Put(b"a"), DeleteRange(b"a"), reads):
        assert not is_read_only(Txn((), (op,)))
        assert not is_read_only(Txn((), (), (op,)))


def test_what_is_serializable():
    local = Range(b"a", serializable=True)
    assert is_serializable(Txn((), (local,), (local,)))
    assert not is_serializable(Txn((), (local,), (Range(b"a"),)))
    assert not is_serializable(Txn((), (Txn(),)))


def test_a_put_is_seen_in_either_branch_and_below():
    assert has_put(Txn((), (), (Put(b"a"),)))
    assert has_put(Txn((), (Txn((), (), (Put(b"a"),)),)))
    assert not has_put(Txn((), (DeleteRange(b"a"), Txn((), (Range(b"a"),)))))


def test_what_a_full_disk_refuses():
    delete, put = DeleteRange(b"a"), Put(b"a")
    nested = Txn((), (Txn((), (put,)),))
    for adds in (put, LeaseGrant(1, 60), Txn((), (delete,), (put,)), nested):
        assert needs_space(adds)
    for lets_go in (delete, Txn((), (delete,), (Range(b"a"),)), LeaseRevoke(1), Compact(2)):
        assert not needs_space(lets_go)


def test_a_full_disk_takes_the_mark_that_kube_apiserver_makes_before_it_compacts():
    assert not needs_space(Txn((), (Put(b"compact_rev_key", b"7"),), (Range(b"compact_rev_key"),)))
