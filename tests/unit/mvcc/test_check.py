import pytest

from datastore.shim.errors import (
    DuplicateKey,
    KeyNotProvided,
    LeaseProvided,
    TooManyOps,
    ValueProvided,
)
from datastore.shim.mvcc.check import check
from datastore.shim.mvcc.ops import EQUAL, Compare, CompareTarget, DeleteRange, Put, Range, Txn


def compare(key=b"a"):
    return Compare(CompareTarget.VERSION, EQUAL, key, 0)


@pytest.mark.parametrize("op", [Range(b"", b"\0"), Put(b""), DeleteRange(b"", b"b")])
def test_a_key_is_needed_everywhere(op):
    for request in (op, Txn((), (op,)), Txn((), (), (Txn((), (op,)),))):
        with pytest.raises(KeyNotProvided):
            check(request)


def test_a_compare_needs_a_key():
    with pytest.raises(KeyNotProvided):
        check(Txn((compare(b""),)))


def test_flags_that_keep_something_take_nothing_in_its_place():
    with pytest.raises(ValueProvided):
        check(Put(b"a", b"v", ignore_value=True))
    with pytest.raises(LeaseProvided):
        check(Put(b"a", lease=1, ignore_lease=True))
    check(Put(b"a", ignore_value=True, ignore_lease=True))


@pytest.mark.parametrize(
    "filled",
    [
        lambda size: Txn(compares=[compare()] * size),
        lambda size: Txn(success=[Range(b"a")] * size),
        lambda size: Txn(failure=[Range(b"a")] * size),
    ],
    ids=["compares", "success", "failure"],
)
def test_each_list_of_a_transaction_is_bounded(filled):
    check(filled(128))
    with pytest.raises(TooManyOps):
        check(filled(129))


def test_a_nested_transaction_gets_what_is_left():
    check(Txn((), (Txn((), [Range(b"a")] * 3),)), 4)
    with pytest.raises(TooManyOps):
        check(Txn((), (Txn((), [Range(b"a")] * 4),)), 4)


def refused(*branch):
    for txn in (Txn((), branch), Txn((), (), branch)):
        with pytest.raises(DuplicateKey):
            check(txn)


def test_a_key_is_put_once():
    refused(Put(b"a"), Put(b"a"))
    check(Txn((), (Put(b"a"),), (Put(b"a"),)))


def test_a_put_inside_a_delete_is_refused_in_either_order():
    refused(Put(b"a"), DeleteRange(b"a"))
    refused(DeleteRange(b"a", b"c"), Put(b"b"))
    check(Txn((), (DeleteRange(b"a", b"c"), Put(b"c"), DeleteRange(b"b", b"c"))))


def test_deletes_behind_a_narrower_one_are_seen():
    refused(DeleteRange(b"a", b"z"), DeleteRange(b"b", b"c"), Put(b"d"))


def test_a_range_without_keys_overlaps_nothing():
    check(Txn((), (DeleteRange(b"c", b"a"), Put(b"b"))))


def test_a_delete_from_key_on_overlaps_nothing_as_in_etcd():
    check(Txn((), (DeleteRange(b"a", b"\0"), Put(b"b"))))


def test_nested_puts_count_with_those_around_them():
    refused(Txn((), (Put(b"a"),)), Put(b"a"))
    refused(Txn((), (), (Put(b"a"),)), Txn((), (Put(b"a"),)))
    refused(DeleteRange(b"a"), Txn((), (Put(b"a"),)))
    refused(Txn((), (DeleteRange(b"a"),)), Put(b"a"))
    refused(Txn((), (Txn((), (Put(b"a"),)),)), Put(b"a"))


def test_only_one_branch_of_a_nested_transaction_runs():
    check(Txn((), (Txn((), (Put(b"a"),), (Put(b"a"),)),)))


def test_a_delete_nested_after_the_put_is_not_seen_as_in_etcd():
    check(Txn((), (Txn((), (Put(b"a"),)), Txn((), (DeleteRange(b"a"),)))))
    refused(Txn((), (DeleteRange(b"a"),)), Txn((), (Put(b"a"),)))
