"""Lease (contract 2.8; traps T4, T5, T36 to T38, T59)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import (
    LEASE_EXISTS,
    NO_LEASE,
    TTL_TOO_LARGE,
    Client,
    delete_op,
    prefix_end,
    put_op,
    refused,
    until_none,
)

DELETE = kv_pb2.Event.DELETE


# Grant


async def test_a_grant_chooses_a_positive_id_and_takes_no_revision(client):
    """T5."""
    before = await client.revision()
    answer = await client.grant(1000)
    assert answer.ID > 0
    assert (answer.TTL, answer.error) == (1000, "")
    assert answer.header.revision == before
    assert await client.revision() == before


@pytest.mark.parametrize("lease", [-7, 0x7FFF_FFFF_FFFF_FFFF, -0x8000_0000_0000_0000, 12345])
async def test_a_client_may_choose_any_id(client, prefix, lease):
    """T36, T59: an id says nothing about the TTL."""
    assert lease == (await client.grant(1000, lease)).ID
    await client.put(prefix, lease=lease)
    assert (await client.get(prefix)).kvs[0].lease == lease
    await client.revoke(lease)
    assert (await client.get(prefix)).count == 0


async def test_an_id_is_granted_once(client):
    lease = (await client.grant(1000)).ID
    with refused(LEASE_EXISTS):
        await client.grant(1000, lease)


@pytest.mark.parametrize("ttl", [-5, 0, 1])
async def test_a_short_ttl_is_raised_to_the_minimum(client, ttl):
    """T59."""
    answer = await client.grant(ttl)
    assert answer.TTL == 2
    await client.revoke(answer.ID)


async def test_the_ttl_has_a_maximum(client):
    assert (await client.grant(9_000_000_000)).TTL == 9_000_000_000
    with refused(TTL_TOO_LARGE):
        await client.grant(9_000_000_001)


# Revoke


async def test_revoking_deletes_all_keys_in_one_revision_in_key_order(client, prefix):
    """T4."""
    lease = (await client.grant(1000)).ID
    for name in (b"c", b"a", b"b"):
        await client.put(prefix + name, lease=lease)
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix))
        answer = await client.revoke(lease)
        response = await stream.next()
    assert [event.type for event in response.events] == [DELETE] * 3
    assert [event.kv.key[-1:] for event in response.events] == [b"a", b"b", b"c"]
    assert {event.kv.mod_revision for event in response.events} == {answer.header.revision}


async def test_revoking_a_lease_without_keys_takes_no_revision(client):
    """T5."""
    lease = (await client.grant(1000)).ID
    before = await client.revision()
    assert (await client.revoke(lease)).header.revision == before
    assert lease not in await client.leases()


@pytest.mark.parametrize("lease", [0, 0x7ABC0DE])
async def test_revoking_an_unknown_lease_is_refused(client, lease):
    with refused(NO_LEASE):
        await client.revoke(lease)


async def test_a_revoked_id_may_be_granted_again(client):
    lease = (await client.grant(1000)).ID
    await client.revoke(lease)
    assert (await client.grant(500, lease)).TTL == 500


# Attachment


async def test_a_put_moves_the_key_to_the_new_lease(client, prefix):
    """T36: masterleases are renewed so, and the old lease must not take the key."""
    old, new = (await client.grant(1000)).ID, (await client.grant(1000)).ID
    await client.put(prefix, lease=old)
    await client.put(prefix, lease=new)
    assert not (await client.time_to_live(old, keys=True)).keys
    assert (await client.time_to_live(new, keys=True)).keys == [prefix]
    await client.revoke(old)
    assert (await client.get(prefix)).count == 1
    await client.revoke(new)
    assert (await client.get(prefix)).count == 0


async def test_a_deleted_and_re_created_key_is_free_of_the_old_lease(client, prefix):
    lease = (await client.grant(1000)).ID
    await client.put(prefix, lease=lease)
    await client.delete(prefix)
    await client.put(prefix, b"free")
    await client.revoke(lease)
    assert (await client.get(prefix)).kvs[0].value == b"free"


async def test_attachment_follows_a_transaction(client, prefix):
    lease = (await client.grant(1000)).ID
    await client.put(prefix + b"a", lease=lease)
    await client.txn(success=[delete_op(prefix + b"a"), put_op(prefix + b"b", lease=lease)])
    assert (await client.time_to_live(lease, keys=True)).keys == [prefix + b"b"]


# Looking


async def test_time_to_live_tells_what_is_left_and_what_was_granted(client, prefix):
    lease = (await client.grant(1000)).ID
    await client.put(prefix + b"a", lease=lease)
    await client.put(prefix + b"b", lease=lease)
    answer = await client.time_to_live(lease, keys=True)
    assert (answer.ID, answer.grantedTTL) == (lease, 1000)
    assert 990 <= answer.TTL <= 1000
    assert sorted(answer.keys) == [prefix + b"a", prefix + b"b"]
    assert not (await client.time_to_live(lease)).keys


async def test_time_to_live_of_an_unknown_lease_is_minus_one(client):
    """T38."""
    answer = await client.time_to_live(0x7ABC0DE, keys=True)
    assert (answer.ID, answer.TTL, answer.grantedTTL, len(answer.keys)) == (0x7ABC0DE, -1, 0, 0)
    assert answer.header.revision == await client.revision()


async def test_leases_are_listed_by_expiry(client):
    long, short = (await client.grant(5000)).ID, (await client.grant(3000)).ID
    mine = [lease for lease in await client.leases() if lease in {long, short}]
    assert mine == [short, long]


# Keeping alive


async def test_a_renewal_tells_the_granted_ttl_in_the_order_of_the_requests(client):
    first, second = (await client.grant(1000)).ID, (await client.grant(2000)).ID
    answers = await client.keep_alive(first, second, first)
    assert [(a.ID, a.TTL) for a in answers] == [(first, 1000), (second, 2000), (first, 1000)]
    assert answers[0].header.revision == await client.revision()


@pytest.mark.parametrize("lease", [0, 0x7ABC0DE])
async def test_renewing_an_unknown_lease_tells_zero(client, lease):
    """T38: an answer, not an error, and the stream goes on."""
    known = (await client.grant(1000)).ID
    unknown, good = await client.keep_alive(lease, known)
    assert (lease, 0) == (unknown.ID, unknown.TTL)
    assert good.TTL == 1000


async def test_a_lease_that_is_renewed_outlives_its_ttl(client, prefix):
    """Measured against an unrenewed lease granted after it."""
    kept = (await client.grant(2)).ID
    await client.put(prefix + b"kept", lease=kept)
    for _ in range(2):
        lost = (await client.grant(2)).ID
        await client.put(prefix + b"lost", lease=lost)
        while await client.count(prefix + b"lost"):
            (answer,) = await client.keep_alive(kept)
            assert answer.TTL == 2
    assert (await client.get(prefix + b"kept")).count == 1
    await client.revoke(kept)


async def test_requests_may_be_sent_ahead_and_answers_come_in_their_order(client):
    leases = [(await client.grant(1000 + number)).ID for number in range(20)]
    call: Any = client.channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")(timeout=10)
    for lease in leases:
        await call.write(pb.LeaseKeepAliveRequest(ID=lease).SerializeToString())
    await call.done_writing()
    answers = [pb.LeaseKeepAliveResponse.FromString(body) async for body in call]
    assert [(a.ID, a.TTL) for a in answers] == [
        (lease, 1000 + n) for n, lease in enumerate(leases)
    ]


# Expiry


async def test_an_expired_lease_takes_its_keys_in_one_revision_and_not_early(client, prefix):
    """T4, T37, T59."""
    loop = asyncio.get_running_loop()
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix), prev_kv=True, filters=[0])
        begun = loop.time()
        lease = (await client.grant(2)).ID
        await client.txn(success=[put_op(prefix + b"%d" % n, b"v", lease=lease) for n in range(5)])
        response = await stream.next()
        assert loop.time() - begun >= 2
    assert [event.kv.key[-1:] for event in response.events] == [b"0", b"1", b"2", b"3", b"4"]
    assert {event.kv.mod_revision for event in response.events} == {response.header.revision}
    assert {event.prev_kv.value for event in response.events} == {b"v"}
    assert lease not in await client.leases()
    assert (await client.time_to_live(lease)).TTL == -1


async def test_a_thousand_keys_expire_in_one_revision_and_one_response(client, prefix):
    """T4: as Kubernetes' Events do."""
    lease = (await client.grant(2)).ID
    for number in range(10):
        await client.txn(
            success=[put_op(prefix + b"%d%02d" % (number, n), lease=lease) for n in range(100)]
        )
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix), filters=[0])
        response = await stream.next()
    keys = [event.kv.key for event in response.events]
    assert len(keys) == 1000
    assert keys == sorted(keys)
    assert {event.kv.mod_revision for event in response.events} == {response.header.revision}


async def test_two_leases_expire_in_a_revision_each(client, prefix):
    """2.8: and no key of one waits for the other."""
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix), filters=[0])
        for name in (b"a", b"b"):
            await client.put(prefix + name, lease=(await client.grant(2)).ID)
        first, second = await stream.events(2)
    assert {first.kv.key, second.kv.key} == {prefix + b"a", prefix + b"b"}
    assert first.kv.mod_revision < second.kv.mod_revision


async def test_an_expired_lease_cannot_be_used_or_renewed(client, prefix):
    """T38."""
    lease = (await client.grant(2)).ID
    await client.put(prefix, lease=lease)
    await until_none(lambda: client.count(prefix))
    assert (await client.keep_alive(lease))[0].TTL == 0
    with refused(NO_LEASE):
        await client.put(prefix, lease=lease)


async def test_expiry_spares_a_key_that_was_put_again(client, prefix):
    """T36."""
    lease = (await client.grant(2)).ID
    await client.put(prefix + b"moved", lease=lease)
    await client.put(prefix + b"taken", lease=lease)
    await client.put(prefix + b"moved")
    await until_none(lambda: client.count(prefix + b"taken"))
    assert (await client.get(prefix + b"moved")).count == 1


async def test_lease_attachment_and_revocation_survive_a_restart(kind, launch):
    """T37, T59: with the full TTL again."""
    if kind.startswith("memory"):
        return
    server = launch(kind)
    async with Client(server.target) as client:
        kept, revoked = (await client.grant(1000, 7)).ID, (await client.grant(1000, 8)).ID
        await client.put(b"kept", lease=kept)
        await client.put(b"moved", lease=revoked)
        await client.put(b"moved", lease=kept)
        await client.put(b"gone", lease=revoked)
        await client.revoke(revoked)
        revision = await client.revision()
    server.kill()
    server.start()
    async with Client(server.target) as client:
        assert await client.leases() == [kept]
        answer = await client.time_to_live(kept, keys=True)
        assert sorted(answer.keys) == [b"kept", b"moved"]
        assert (answer.grantedTTL, answer.TTL >= 995) == (1000, True)
        assert await client.revision() == revision
        await client.revoke(kept)
        assert (await client.get(b"\0", b"\0")).count == 0
    server.close()


async def test_a_short_lease_expires_after_a_restart_and_not_early(kind, launch):
    """T37."""
    if kind.startswith("memory"):
        return
    server = launch(kind)
    async with Client(server.target) as client:
        await client.put(b"a", lease=(await client.grant(3)).ID)
    server.kill()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    server.start()
    async with Client(server.target) as client:
        await until_none(lambda: client.count(b"a"))
        assert loop.time() - begun >= 3
        assert not await client.leases()
    server.close()
