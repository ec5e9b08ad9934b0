"""v3lockpb.Lock (contract 2.11; trap T20)."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest

from tests.support.client import Client, Code, Refusal, refused
from tests.support.queues import (
    CODELESS_NO_KEY,
    CODELESS_NO_LEASE,
    LOST,
    lock,
    queued,
    unlock,
)


async def test_a_free_lock_is_held_at_once_by_a_key_named_after_the_lease(client, prefix):
    lease = (await client.grant(60)).ID
    held = await lock(client, prefix + b"l", lease)
    assert held.key == prefix + b"l/%x" % lease
    (kv,) = (await client.get(held.key)).kvs
    assert (kv.value, kv.lease, kv.version) == (b"", lease, 1)
    assert held.header.revision == kv.create_revision
    assert held.header.member_id


async def test_a_lease_may_be_negative(client, prefix):
    await client.grant(60, -31)
    held = await lock(client, prefix, -31)
    assert held.key == prefix + b"/-1f"
    await client.revoke(-31)


async def test_who_brings_no_lease_gets_one_of_a_minute(client, prefix):
    held = await lock(client, prefix)
    lease = (await client.get(held.key)).kvs[0].lease
    assert held.key == prefix + b"/%x" % lease
    assert (await client.time_to_live(lease)).grantedTTL == 60


async def test_the_next_in_the_queue_gets_the_lock_when_it_is_let_go(client, prefix):
    held = await lock(client, prefix)
    lease = (await client.grant(60)).ID
    waiter = asyncio.create_task(lock(client, prefix, lease))
    await queued(client, prefix, 2)
    assert not waiter.done()
    freed = await unlock(client, held.key)
    second = await waiter
    assert second.key == prefix + b"/%x" % lease
    assert second.header.revision >= freed.header.revision
    assert await client.count(held.key) == 0


async def test_many_get_the_lock_in_the_order_they_came_one_at_a_time(client, prefix):
    order, waiters = [], []

    async def enter(n: int) -> None:
        held = await lock(client, prefix)
        order.append(n)
        count = (await client.list(prefix, sort_target=2, sort_order=1)).kvs
        assert count[0].key == held.key, "who holds the lock is in front"
        await unlock(client, held.key)

    first = await lock(client, prefix)
    for n in range(12):
        waiters.append(asyncio.create_task(enter(n)))
        await queued(client, prefix, n + 2)
    await unlock(client, first.key)
    await asyncio.gather(*waiters)
    assert order == list(range(12))


async def test_who_locks_again_with_the_same_lease_holds_it_still(client, prefix):
    lease = (await client.grant(60)).ID
    first = await lock(client, prefix, lease)
    again = await lock(client, prefix, lease)
    assert again.key == first.key
    assert (await client.get(first.key)).kvs[0].version == 1
    assert again.header.revision == first.header.revision


async def test_a_waiter_that_hangs_up_leaves_the_queue(client, prefix, server):
    held = await lock(client, prefix)
    async with Client(server.target) as other:
        waiter = asyncio.create_task(lock(other, prefix))
        await queued(client, prefix, 2)
        waiter.cancel()
        await queued(client, prefix, 1)
    assert await client.count(held.key) == 1


async def test_a_waiter_whose_deadline_passes_leaves_the_queue(client, prefix):
    await lock(client, prefix)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await lock(client, prefix, timeout=0.5)
    assert error.value.code() == Code.DEADLINE_EXCEEDED
    await queued(client, prefix, 1)


async def test_those_behind_a_waiter_that_left_wait_for_those_before_it(client, prefix):
    held = await lock(client, prefix)
    leaver = asyncio.create_task(lock(client, prefix))
    await queued(client, prefix, 2)
    stayer = asyncio.create_task(lock(client, prefix))
    await queued(client, prefix, 3)
    leaver.cancel()
    await queued(client, prefix, 2)
    assert not stayer.done()
    await unlock(client, held.key)
    await stayer


async def test_the_lock_passes_on_when_its_lease_ends(client, prefix):
    lease = (await client.grant(60)).ID
    await lock(client, prefix, lease)
    waiter = asyncio.create_task(lock(client, prefix))
    await queued(client, prefix, 2)
    await client.revoke(lease)
    await waiter


async def test_a_waiter_whose_lease_ended_is_told_when_its_turn_comes(client, prefix):
    held = await lock(client, prefix)
    lease = (await client.grant(60)).ID
    waiter = asyncio.create_task(lock(client, prefix, lease))
    await queued(client, prefix, 2)
    await client.revoke(lease)
    await unlock(client, held.key)
    with refused(LOST):
        await waiter


async def test_the_lock_of_a_lease_that_is_not_there_is_refused(client, prefix):
    with refused(CODELESS_NO_LEASE):
        await lock(client, prefix, 0x7777_7777)
    await queued(client, prefix, 0)


async def test_locks_under_a_name_wait_for_that_name_s_other_keys(client, prefix):
    """The queue of `a` is every key under `a/`, whoever put it there."""
    await client.put(prefix + b"/other", b"x")
    waiter = asyncio.create_task(lock(client, prefix))
    await queued(client, prefix, 2)
    assert not waiter.done()
    await client.put(prefix + b"/other", b"y")
    await client.delete(prefix + b"/other")
    await waiter


async def test_a_name_that_begins_another_is_another_lock(client, prefix):
    await lock(client, prefix + b"a")
    await lock(client, prefix + b"ab")
    await lock(client, prefix)


async def test_unlocking_takes_any_key_and_needs_one(client, prefix):
    before = await client.revision()
    assert (await unlock(client, prefix + b"/none")).header.revision == before
    with refused(CODELESS_NO_KEY):
        await unlock(client, b"")


async def test_the_methods_of_the_service_are_known(client):
    with refused(Refusal(Code.UNIMPLEMENTED, "unknown method Try for service v3lockpb.Lock")):
        await client.call("/v3lockpb.Lock/Try", b"", type(await lock(client, b"x")))
