"""v3electionpb.Election (contract 2.11; trap T20)."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest

from datastore.etcdpb import election_pb2 as epb
from tests.support.client import Client, Code, refused
from tests.support.queues import (
    CODELESS_NO_KEY,
    CODELESS_NO_LEASE,
    LEADER_MISSING,
    NO_LEADER,
    NOT_LEADER,
    campaign,
    get_leader,
    observing,
    proclaim,
    queued,
    resign,
)


@pytest.fixture
async def lease(client):
    return (await client.grant(60)).ID


async def test_the_first_candidate_leads(client, prefix, lease):
    won = await campaign(client, prefix, lease, b"me")
    key = prefix + b"/%x" % lease
    (kv,) = (await client.get(key)).kvs
    assert (kv.value, kv.lease) == (b"me", lease)
    assert won.leader == epb.LeaderKey(name=prefix, key=key, rev=kv.create_revision, lease=lease)
    assert won.header.revision == kv.create_revision
    seen = await get_leader(client, prefix)
    assert seen.kv == kv
    assert seen.header.revision >= kv.mod_revision


async def test_a_candidate_without_a_lease_gets_one_of_a_minute(client, prefix):
    won = await campaign(client, prefix, 0)
    assert won.leader.key == prefix + b"/%x" % won.leader.lease
    assert (await client.time_to_live(won.leader.lease)).grantedTTL == 60


async def test_a_candidate_whose_lease_is_not_there_is_refused(client, prefix):
    with refused(CODELESS_NO_LEASE):
        await campaign(client, prefix, 0x7777_7777)


async def test_the_next_leads_when_the_leader_resigns(client, prefix, lease):
    first = await campaign(client, prefix, lease, b"1")
    waiter = asyncio.create_task(campaign(client, prefix, 0, b"2"))
    await queued(client, prefix, 2)
    assert not waiter.done()
    resigned = await resign(client, first.leader)
    second = await waiter
    assert second.header.revision == second.leader.rev < resigned.header.revision
    assert (await get_leader(client, prefix)).kv.value == b"2"


async def test_the_next_leads_when_the_leader_s_lease_ends(client, prefix, lease):
    await campaign(client, prefix, lease)
    waiter = asyncio.create_task(campaign(client, prefix, 0, b"2"))
    await queued(client, prefix, 2)
    await client.revoke(lease)
    await waiter


async def test_candidates_lead_in_the_order_they_came(client, prefix, lease):
    order, waiters = [], []

    async def stand(n: int) -> None:
        won = await campaign(client, prefix, 0, b"%d" % n)
        order.append(n)
        await resign(client, won.leader)

    first = await campaign(client, prefix, lease)
    for n in range(8):
        waiters.append(asyncio.create_task(stand(n)))
        await queued(client, prefix, n + 2)
    await resign(client, first.leader)
    await asyncio.gather(*waiters)
    assert order == list(range(8))


async def test_a_leader_that_stands_again_shows_its_new_value(client, prefix, lease):
    first = await campaign(client, prefix, lease, b"1")
    again = await campaign(client, prefix, lease, b"2")
    assert again.leader == first.leader
    kv = (await get_leader(client, prefix)).kv
    assert (kv.value, kv.version, kv.lease) == (b"2", 2, lease)
    same = await campaign(client, prefix, lease, b"2")
    assert same.leader == first.leader
    assert (await get_leader(client, prefix)).kv == kv


async def test_a_candidate_that_hangs_up_is_none_any_more(client, prefix, lease, server):
    await campaign(client, prefix, lease)
    async with Client(server.target) as other:
        waiter = asyncio.create_task(campaign(other, prefix, 0))
        await queued(client, prefix, 2)
        waiter.cancel()
        await queued(client, prefix, 1)
    assert (await get_leader(client, prefix)).kv.lease == lease


async def test_a_candidate_whose_deadline_passes_is_none_any_more(client, prefix, lease):
    await campaign(client, prefix, lease)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await campaign(client, prefix, 0, timeout=0.5)
    assert error.value.code() == Code.DEADLINE_EXCEEDED
    await queued(client, prefix, 1)


async def test_a_candidate_whose_lease_ended_is_not_told(client, prefix, lease):
    first = await campaign(client, prefix, lease)
    own = (await client.grant(60)).ID
    waiter = asyncio.create_task(campaign(client, prefix, own))
    await queued(client, prefix, 2)
    await client.revoke(own)
    await resign(client, first.leader)
    lost = await waiter
    assert lost.leader.lease == own
    with refused(NO_LEADER):
        await get_leader(client, prefix)


async def test_a_leader_shows_another_value(client, prefix, lease):
    won = await campaign(client, prefix, lease, b"1")
    shown = await proclaim(client, won.leader, b"2")
    kv = (await get_leader(client, prefix)).kv
    assert (kv.value, kv.mod_revision, kv.lease) == (b"2", shown.header.revision, lease)


async def test_who_does_not_lead_shows_nothing(client, prefix, lease):
    won = await campaign(client, prefix, lease, b"1")
    await resign(client, won.leader)
    with refused(NOT_LEADER):
        await proclaim(client, won.leader, b"2")
    won.leader.rev += 1
    with refused(NOT_LEADER):
        await proclaim(client, won.leader, b"2")


async def test_a_value_shown_without_a_lease_gets_one_of_a_minute(client, prefix, lease):
    won = await campaign(client, prefix, lease, b"1")
    won.leader.lease = 0
    await proclaim(client, won.leader, b"2")
    kv = (await client.get(won.leader.key)).kvs[0]
    assert kv.lease not in {0, lease}
    assert (await client.time_to_live(kv.lease)).grantedTTL == 60


async def test_resigning_twice_is_no_error(client, prefix, lease):
    won = await campaign(client, prefix, lease)
    await resign(client, won.leader)
    revision = await client.revision()
    assert (await resign(client, won.leader)).header.revision == revision


async def test_a_leader_has_to_be_named(client):
    with refused(LEADER_MISSING):
        await proclaim(client, None)
    with refused(LEADER_MISSING):
        await resign(client, None)
    with refused(CODELESS_NO_KEY):
        await proclaim(client, epb.LeaderKey())
    with refused(CODELESS_NO_KEY):
        await resign(client, epb.LeaderKey())


async def test_an_election_without_candidates_has_no_leader(client, prefix):
    with refused(NO_LEADER):
        await get_leader(client, prefix)


async def test_an_observer_sees_each_leader_and_each_value(client, prefix, lease):
    async with observing(client, prefix) as observed:
        first = await campaign(client, prefix, lease, b"1")
        seen = await observed.next()
        assert (seen.kv.value, seen.kv.key) == (b"1", first.leader.key)
        assert seen.header.revision == first.leader.rev
        shown = await proclaim(client, first.leader, b"1b")
        seen = await observed.next()
        assert seen.kv.value == b"1b"
        assert seen.header.revision == shown.header.revision
        assert seen.header.cluster_id == shown.header.cluster_id
        second = asyncio.create_task(campaign(client, prefix, 0, b"2"))
        await queued(client, prefix, 2)
        await resign(client, first.leader)
        assert (await observed.next()).kv.value == b"2"
        await resign(client, (await second).leader)
        await campaign(client, prefix, lease, b"3")
        assert (await observed.next()).kv.value == b"3"


async def test_an_observer_that_comes_late_sees_who_leads(client, prefix, lease):
    won = await campaign(client, prefix, lease, b"1")
    async with observing(client, prefix) as observed, observing(client, prefix) as other:
        for each in (observed, other):
            seen = await each.next()
            assert seen.kv.create_revision == won.leader.rev
            assert seen.kv.lease == lease
