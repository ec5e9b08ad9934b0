"""What a KV.Txn does (contract 2.5; traps T4, T17, T20, T44, T56)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.client import (
    KEY_NOT_FOUND,
    delete_op,
    get_op,
    prefix_end,
    put_op,
    refused,
    txn_op,
    when,
)

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
