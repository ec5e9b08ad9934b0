"""KV.Txn (contract 2.5; traps T4, T8, T17 to T21, T44, T50, T56, T57)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import (
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
    prefix_end,
    put_op,
    refused,
    txn_op,
    when,
)

UNKNOWN_RESULT: Any = 9


async def holds(client, *compare) -> bool:
    return (await client.txn(compare)).succeeded


# Compares


@pytest.mark.parametrize("target", ["version", "create_revision", "mod_revision", "lease"])
@pytest.mark.parametrize(
    ("result", "low", "same", "high"),
    [
        ("=", False, True, False),
        ("!=", True, False, True),
        (">", True, False, False),
        ("<", False, False, True),
    ],
)
async def test_numbers_of_a_key_are_compared(client, prefix, target, result, low, same, high):
    lease = (await client.grant(1000)).ID
    await client.put(prefix)
    await client.put(prefix, lease=lease)
    is_now = getattr((await client.get(prefix)).kvs[0], target)
    for number, expected in ((is_now - 1, low), (is_now, same), (is_now + 1, high)):
        fields: Any = {target: number}
        assert await holds(client, when(prefix, result, **fields)) is expected


@pytest.mark.parametrize(
    ("result", "low", "same", "high"),
    [
        ("=", False, True, False),
        ("!=", True, False, True),
        (">", True, False, False),
        ("<", False, False, True),
    ],
)
async def test_values_are_compared_as_bytes(client, prefix, result, low, same, high):
    await client.put(prefix, b"m\xff")
    for value, expected in ((b"m\x00z", low), (b"m\xff", same), (b"m\xff\x00", high)):
        assert await holds(client, when(prefix, result, value=value)) is expected


@pytest.mark.parametrize("target", ["version", "create_revision", "mod_revision", "lease"])
async def test_the_numbers_of_a_missing_key_are_zero(client, prefix, target):
    """T17: mod revision 0 is Kubernetes' create."""
    zero: Any = {target: 0}
    assert await holds(client, when(prefix, **zero))
    assert not await holds(client, when(prefix, ">", **zero))


@pytest.mark.parametrize("result", ["=", "!=", "<", ">"])
async def test_the_value_of_a_missing_key_compares_false(client, prefix, result):
    """T17."""
    assert not await holds(client, when(prefix, result, value=b""))


async def test_an_unset_target_union_means_zero(client, prefix):
    assert await holds(client, pb.Compare(key=prefix, target=pb.Compare.VERSION))
    await client.put(prefix)
    assert not await holds(client, pb.Compare(key=prefix, target=pb.Compare.VERSION))
    assert await holds(client, pb.Compare(key=prefix, target=pb.Compare.VALUE))


async def test_an_unknown_result_is_true(client, prefix):
    assert await holds(client, pb.Compare(key=prefix, result=UNKNOWN_RESULT, version=7))


async def test_every_key_of_a_range_must_satisfy_a_range_compare(client, prefix):
    end = prefix_end(prefix)
    await client.put(prefix + b"a")
    await client.put(prefix + b"b")
    assert await holds(client, when(prefix, end=end, version=1))
    await client.put(prefix + b"b")
    assert not await holds(client, when(prefix, end=end, version=1))
    assert await holds(client, when(prefix, ">", end=end, version=0))


async def test_an_empty_range_compares_like_a_missing_key(client, prefix):
    """T17."""
    end = prefix_end(prefix)
    assert await holds(client, when(prefix, end=end, mod_revision=0))
    assert not await holds(client, when(prefix, "!=", end=end, value=b"x"))


async def test_all_compares_must_hold(client, prefix):
    await client.put(prefix)
    assert await holds(client, when(prefix, version=1), when(prefix, value=b""))
    assert not await holds(client, when(prefix, version=1), when(prefix, value=b"x"))


# Branches and answers


async def test_without_compares_the_success_branch_runs(client, prefix):
    answer = await client.txn(success=[put_op(prefix, b"yes")], failure=[put_op(prefix, b"no")])
    assert answer.succeeded
    assert (await client.get(prefix)).kvs[0].value == b"yes"


async def test_a_failed_compare_runs_the_failure_branch(client, prefix):
    """Kubernetes' update: on conflict the current object comes back."""
    await client.put(prefix, b"current")
    before = await client.revision()
    answer = await client.txn(
        [when(prefix, mod_revision=1)], [put_op(prefix, b"new")], [get_op(prefix)]
    )
    assert not answer.succeeded
    assert answer.responses[0].response_range.kvs[0].value == b"current"
    assert answer.header.revision == before


async def test_an_empty_transaction_is_legal_and_takes_no_revision(client):
    before = await client.revision()
    answer = await client.txn()
    assert (answer.succeeded, len(answer.responses)) == (True, 0)
    assert answer.header.revision == before


async def test_one_response_an_operation_each_of_its_kind(client, prefix):
    answer = await client.txn(
        success=[
            put_op(prefix + b"a", b"1"),
            get_op(prefix + b"a"),
            delete_op(prefix + b"b"),
            txn_op(success=[get_op(prefix)]),
        ]
    )
    kinds = [response.WhichOneof("response") for response in answer.responses]
    assert kinds == ["response_put", "response_range", "response_delete_range", "response_txn"]


async def test_inner_headers_tell_the_transactions_revision_only(client, prefix):
    """T8: Kubernetes up to 1.31 reads them."""
    other = prefix + b"other"
    await client.put(other)
    answer = await client.txn(
        success=[get_op(prefix), put_op(prefix), get_op(prefix), delete_op(other)]
    )
    first, put, later, delete = (
        getattr(r, str(r.WhichOneof("response"))).header for r in answer.responses
    )
    assert first.revision == answer.header.revision - 1
    assert [header.revision for header in (put, later, delete)] == [answer.header.revision] * 3
    assert (put.cluster_id, put.member_id, put.raft_term) == (0, 0, 0)


async def test_all_changes_share_one_revision(client, prefix):
    """T4."""
    before = await client.revision()
    answer = await client.txn(success=[put_op(prefix + b"a"), put_op(prefix + b"b")])
    found = await client.list(prefix)
    assert answer.header.revision == before + 1
    assert [kv.mod_revision for kv in found.kvs] == [before + 1] * 2


@pytest.mark.parametrize("nested", [False, True])
async def test_a_transaction_that_changes_nothing_takes_no_revision(client, prefix, nested):
    """T5."""
    before = await client.revision()
    operation = delete_op(prefix)
    answer = await client.txn(success=[txn_op(success=[operation]) if nested else operation])
    assert answer.header.revision == before
    assert await client.revision() == before


async def test_prev_kv_and_deleted_come_back(client, prefix):
    await client.put(prefix, b"old")
    answer = await client.txn(success=[put_op(prefix, b"new", prev_kv=True)])
    assert answer.responses[0].response_put.prev_kv.value == b"old"
    answer = await client.txn(success=[delete_op(prefix, prev_kv=True)])
    delete = answer.responses[0].response_delete_range
    assert (delete.deleted, delete.prev_kvs[0].value) == (1, b"new")


# What operations see


async def test_compares_are_evaluated_before_any_operation(client, prefix):
    """T18, also for the compares of nested transactions."""
    nested = txn_op([when(prefix, version=0)], [put_op(prefix + b"then")], [])
    answer = await client.txn(success=[put_op(prefix), nested])
    assert answer.responses[1].response_txn.succeeded


async def test_reads_see_earlier_changes_of_their_transaction(client, prefix):
    """T18, T57."""
    await client.put(prefix + b"gone", b"x")
    answer = await client.txn(
        success=[
            get_op(prefix, prefix_end(prefix)),
            put_op(prefix + b"new", b"y"),
            delete_op(prefix + b"gone"),
            get_op(prefix, prefix_end(prefix)),
        ]
    )
    before, after = answer.responses[0].response_range, answer.responses[3].response_range
    assert [kv.key for kv in before.kvs] == [prefix + b"gone"]
    assert [kv.key for kv in after.kvs] == [prefix + b"new"]
    assert after.kvs[0].mod_revision == answer.header.revision
    assert (before.count, after.count) == (1, 1)


async def test_a_read_at_a_revision_does_not_see_the_transaction(client, prefix):
    then = (await client.put(prefix, b"old")).header.revision
    answer = await client.txn(success=[put_op(prefix, b"new"), get_op(prefix, revision=then)])
    assert answer.responses[1].response_range.kvs[0].value == b"old"


async def test_a_delete_takes_what_was_put_before_it_in_a_nested_transaction(client, prefix):
    """T57: then and else may change the same key, and a get after a delete sees the delete."""
    await client.put(prefix, b"x")
    nested = txn_op([when(prefix, version=1)], [delete_op(prefix)], [put_op(prefix)])
    answer = await client.txn(success=[nested, get_op(prefix)])
    assert answer.responses[0].response_txn.responses[0].response_delete_range.deleted == 1
    assert answer.responses[1].response_range.count == 0


async def test_nested_answers_have_inner_headers_of_their_own(client, prefix):
    """T57."""
    answer = await client.txn(success=[txn_op(success=[put_op(prefix)])])
    inner = answer.responses[0].response_txn
    assert inner.succeeded
    assert inner.header.revision == 0
    assert inner.responses[0].response_put.header.revision == answer.header.revision


async def test_a_later_put_of_a_transaction_sees_the_versions_before_it(client, prefix):
    await client.put(prefix)
    answer = await client.txn(success=[delete_op(prefix), get_op(prefix)])
    assert answer.responses[1].response_range.count == 0
    assert (await client.get(prefix)).count == 0


@pytest.mark.parametrize("flag", ["ignore_value", "ignore_lease"])
async def test_keeping_what_the_same_transaction_deleted_is_refused(client, high, flag):
    """T56: etcd 3.7.3 dies of this one."""
    await client.put(high, b"x")
    before = await client.revision()
    fields: Any = {flag: True}
    with refused(KEY_NOT_FOUND):
        await client.txn(success=[delete_op(high, b"\0"), put_op(high, **fields)])
    assert await client.revision() == before
    assert (await client.get(high)).kvs[0].value == b"x"


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


# Shapes of Kubernetes and others


async def test_create_if_absent_happens_once(client, prefix):
    """T20: and the loser changes nothing."""
    absent = [when(prefix, mod_revision=0)]
    assert (await client.txn(absent, [put_op(prefix, b"first")])).succeeded
    assert not (await client.txn(absent, [put_op(prefix, b"second")])).succeeded
    assert (await client.get(prefix)).kvs[0].value == b"first"


async def test_optimistic_updates_lose_nothing(client, prefix):
    """T47, T52: guarded by the mod revision, each success counts once."""
    await client.put(prefix, b"0")

    async def add() -> int:
        tries = 0
        while True:
            tries += 1
            (found,) = (await client.get(prefix)).kvs
            value = b"%d" % (int(found.value) + 1)
            guard = [when(prefix, mod_revision=found.mod_revision)]
            if (await client.txn(guard, [put_op(prefix, value)], [get_op(prefix)])).succeeded:
                return tries

    await asyncio.gather(*(add() for _ in range(40)))
    (found,) = (await client.get(prefix)).kvs
    assert (found.value, found.version) == (b"40", 41)


async def test_kubernetes_compactor_key_is_an_ordinary_key(client):
    """T44: stored and versioned as it is written."""
    key = b"compact_rev_key"
    version = sum(kv.version for kv in (await client.get(key)).kvs)
    answer = await client.txn([when(key, version=version)], [put_op(key, b"0")], [get_op(key)])
    assert answer.succeeded
    answer = await client.txn([when(key, version=version)], [put_op(key, b"7")], [get_op(key)])
    assert not answer.succeeded
    (found,) = answer.responses[0].response_range.kvs
    assert (found.version, found.value) == (version + 1, b"0")


async def test_the_lock_recipe_finds_the_oldest_key_of_a_prefix(client, prefix):
    """T20: create compare, put, and a range sorted by creation in one transaction."""
    oldest = get_op(prefix, prefix_end(prefix), sort_target="CREATE", limit=1)
    owners = []
    for name in (b"b", b"a"):
        mine = prefix + name
        answer = await client.txn(
            [when(mine, create_revision=0)], [put_op(mine), oldest], [get_op(mine), oldest]
        )
        owners.append(answer.responses[1].response_range.kvs[0].key)
    assert owners == [prefix + b"b"] * 2
