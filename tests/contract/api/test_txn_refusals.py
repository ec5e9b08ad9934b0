"""What KV.Txn refuses, and its limits (contract 2.5; traps T4, T19, T21, T50, T57)."""

from __future__ import annotations

from typing import Any

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import (
    BAD_SORT,
    COMPACTED,
    DUPLICATE_KEY,
    FUTURE,
    KEY_NOT_FOUND,
    LEASE_PROVIDED,
    NO_KEY,
    NO_LEASE,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
    delete_op,
    get_op,
    put_op,
    refused,
    txn_op,
    when,
)

UNKNOWN_ENUM: Any = 9

# Refusals


@pytest.mark.parametrize(
    ("bad", "refusal"),
    [
        (lambda key: put_op(key + b"2", lease=0x7ABC0DE), NO_LEASE),
        (lambda key: get_op(key, revision=1 << 40), FUTURE),
        (lambda key: get_op(key, revision=1), COMPACTED),
        (lambda key: put_op(key + b"2", ignore_value=True), KEY_NOT_FOUND),
        (lambda key: put_op(key + b"2", ignore_lease=True), KEY_NOT_FOUND),
        (lambda key: put_op(key + b"2", b"v", ignore_value=True), VALUE_PROVIDED),
        (lambda key: put_op(key + b"2", lease=1, ignore_lease=True), LEASE_PROVIDED),
        (lambda key: pb.RequestOp(), KEY_NOT_FOUND),
        (lambda key: put_op(b""), NO_KEY),
        (lambda key: get_op(b""), NO_KEY),
        (lambda key: delete_op(b""), NO_KEY),
        (put_op, DUPLICATE_KEY),
    ],
    ids=[
        "unknown lease",
        "future read",
        "compacted read",
        "no value to keep",
        "no lease to keep",
        "value beside ignore_value",
        "lease beside ignore_lease",
        "empty operation",
        "put without key",
        "range without key",
        "delete without key",
        "duplicate key",
    ],
)
@pytest.mark.parametrize("nested", [False, True])
async def test_one_bad_operation_fails_the_whole_transaction(client, prefix, bad, refusal, nested):
    """T19: without a trace."""
    await client.compact((await client.put(prefix + b"0")).header.revision)
    before = await client.revision()
    operation = bad(prefix)
    with refused(refusal):
        await client.txn(
            success=[put_op(prefix), txn_op(success=[operation]) if nested else operation]
        )
    assert await client.revision() == before
    assert not (await client.get(prefix)).kvs


async def test_a_bad_lease_in_the_branch_not_taken_does_no_harm(client, prefix):
    answer = await client.txn(success=[get_op(prefix)], failure=[put_op(prefix, lease=0x7ABC0DE)])
    assert answer.succeeded


async def test_an_empty_compare_key_is_refused(client):
    with refused(NO_KEY):
        await client.txn([when(b"", version=0)])


@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize(
    "build",
    [
        lambda a, b: [put_op(a), put_op(a)],
        lambda a, b: [put_op(a), delete_op(a)],
        lambda a, b: [delete_op(a, b), put_op(a)],
        lambda a, b: [put_op(a), txn_op(success=[put_op(a)])],
        lambda a, b: [txn_op(failure=[put_op(a)]), txn_op(success=[put_op(a)])],
        lambda a, b: [delete_op(a, b + b"\0"), txn_op(failure=[put_op(b)])],
        lambda a, b: [txn_op(success=[txn_op(success=[put_op(a), put_op(a)])])],
    ],
    ids=[
        "put put",
        "put delete",
        "delete put",
        "put nested put",
        "two nested puts",
        "delete nested put",
        "both nested",
    ],
)
async def test_one_key_may_not_change_twice(client, prefix, success, build):
    """T21, T57: both branches are checked, and every level."""
    operations = build(prefix + b"a", prefix + b"b")
    with refused(DUPLICATE_KEY):
        await client.txn(**{"success" if success else "failure": operations})


async def test_overlapping_deletes_are_legal(client, prefix):
    await client.put(prefix)
    answer = await client.txn(success=[delete_op(prefix), delete_op(prefix, b"\0")])
    assert answer.responses[0].response_delete_range.deleted == 1


async def test_a_delete_to_the_end_of_all_keys_is_not_looked_at_for_overlap(client, high):
    """T21: etcd takes the NUL end as it stands, so that a put of a key in the range is legal."""
    await client.put(high)
    answer = await client.txn(success=[delete_op(high, b"\0"), put_op(high + b"b")])
    assert answer.responses[0].response_delete_range.deleted == 1
    assert [kv.key for kv in (await client.get(high, b"\0")).kvs] == [high + b"b"]


async def test_both_branches_may_put_the_same_key(client, prefix):
    nested = txn_op(success=[put_op(prefix, b"then")], failure=[put_op(prefix, b"else")])
    await client.txn(success=[nested])
    await client.txn(success=[put_op(prefix)], failure=[put_op(prefix)])


# Limits


@pytest.mark.parametrize("part", ["compare", "success", "failure"])
async def test_a_list_of_a_transaction_has_at_most_128_entries(client, prefix, part):
    """T50."""
    entry = when(prefix, version=0) if part == "compare" else get_op(prefix)
    await client.txn(**{part: [entry] * 128})
    with refused(TOO_MANY_OPS):
        await client.txn(**{part: [entry] * 129})


async def test_nested_transactions_share_the_budget(client, prefix):
    def nest(inner: int, outer: int) -> list[pb.RequestOp]:
        return [get_op(prefix)] * (outer - 1) + [txn_op(success=[get_op(prefix)] * inner)]

    await client.txn(success=nest(inner=64, outer=64))
    with refused(TOO_MANY_OPS):
        await client.txn(success=nest(inner=65, outer=64))


async def test_a_full_transaction_of_puts_is_one_revision(client, prefix):
    """T4, T50."""
    puts = [put_op(prefix + b"%03d" % n, bytes(10_000)) for n in range(128)]
    answer = await client.txn(success=puts)
    found = await client.list(prefix)
    assert {kv.mod_revision for kv in found.kvs} == {answer.header.revision}
    assert found.count == 128


# Several faults at once: etcd's checkTxnRequest decides which is told


BAD_SORT_OP = get_op(b"a", sort_order=UNKNOWN_ENUM)
EMPTY = pb.RequestOp()
TWICE = [put_op(b"a"), put_op(b"a")]
VALUE_TOO = put_op(b"a", b"v", ignore_value=True)


@pytest.mark.parametrize(
    ("compare", "success", "failure", "refusal"),
    [
        ([], [EMPTY] * 129, [], TOO_MANY_OPS),
        ([when(b"", version=0)] * 129, [], [], TOO_MANY_OPS),
        ([when(b"", version=0)], [EMPTY], [], NO_KEY),
        ([when(b"", version=0)], [BAD_SORT_OP], [], NO_KEY),
        ([], [put_op(b""), EMPTY], [], NO_KEY),
        ([], [EMPTY, put_op(b"")], [], KEY_NOT_FOUND),
        ([], [VALUE_TOO, EMPTY], [], VALUE_PROVIDED),
        ([], [VALUE_TOO, BAD_SORT_OP], [], VALUE_PROVIDED),
        ([], [BAD_SORT_OP, VALUE_TOO], [], BAD_SORT),
        ([], [get_op(b"", sort_order=UNKNOWN_ENUM)], [], NO_KEY),
        ([], TWICE, [EMPTY], KEY_NOT_FOUND),
        ([], TWICE, [BAD_SORT_OP], BAD_SORT),
        ([], [VALUE_TOO], [EMPTY], VALUE_PROVIDED),
        ([], [txn_op(success=TWICE), EMPTY], [], KEY_NOT_FOUND),
        ([], [txn_op(success=[EMPTY]), put_op(b"")], [], KEY_NOT_FOUND),
        ([], [txn_op([when(b"", version=0)], [EMPTY])], [], NO_KEY),
        ([], [txn_op(success=[EMPTY] * 128)], [], TOO_MANY_OPS),
        ([], [EMPTY, txn_op(success=[EMPTY] * 128)], [], KEY_NOT_FOUND),
    ],
)
async def test_of_several_faults_the_same_one_is_told(client, compare, success, failure, refusal):
    with refused(refusal):
        await client.txn(compare, success, failure)
