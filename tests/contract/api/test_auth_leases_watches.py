"""Leases, watches and running clients while auth is on (contract 2.10; traps 57 and 60)."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.auth import (
    BAD_TOKEN,
    DENIED,
    EVERYTHING,
    NOBODY,
    OLD,
    READ,
    READWRITE,
    WRITE,
    bearing,
)
from tests.support.client import (
    Client,
    Code,
    Refusal,
    put_op,
    refused,
)

# -- leases --------------------------------------------------------------------------------


@pytest.fixture
async def shared_lease(as_user, auth) -> tuple[Client, int]:
    """Give a client that may write `a` and `b` and read `a`, and a lease of `a` and `x`."""
    alice = await as_user((READWRITE, b"a", b""), (WRITE, b"b", b""))
    lease = (await auth.client.grant(600)).ID
    await auth.client.put(b"a", lease=lease)
    await auth.client.put(b"x", lease=lease)
    return alice, lease


async def test_a_lease_with_keys_of_others_cannot_be_used(shared_lease, auth):
    alice, lease = shared_lease
    for request in (
        alice.put(b"a", lease=lease),
        alice.txn(success=[put_op(b"a", lease=lease)]),
        alice.revoke(lease),
        alice.keep_alive(lease),
        alice.time_to_live(lease, keys=True),
        alice.leases(),
    ):
        with refused(DENIED):
            await request
    assert (await alice.time_to_live(lease)).grantedTTL == 600
    await auth.client.delete(b"x")
    await alice.put(b"a", lease=lease)
    (renewed,) = await alice.keep_alive(lease)
    assert renewed.TTL == 600
    assert (await alice.time_to_live(lease, keys=True)).keys == [b"a"]
    assert await alice.leases() == [lease]
    await alice.revoke(lease)


async def test_leases_are_listed_for_who_may_read_all_their_keys(shared_lease, auth):
    alice, lease = shared_lease
    await auth.client.delete(b"x")
    assert await alice.leases() == [lease]
    await alice.put(b"b", lease=lease)
    for request in (alice.leases(), alice.time_to_live(lease, keys=True)):
        with refused(DENIED):
            await request
    await alice.keep_alive(lease)


async def test_a_lease_that_is_not_there_is_no_matter_of_permission(as_user):
    alice = await as_user((WRITE, b"k", b""))
    no_lease = Refusal(Code.NOT_FOUND, "etcdserver: requested lease not found")
    for request in (alice.put(b"k", lease=404), alice.revoke(404)):
        with refused(no_lease):
            await request
    (renewed,) = await alice.keep_alive(404)
    assert renewed.TTL == 0
    assert (await alice.time_to_live(404, keys=True)).TTL == -1


async def test_expired_leases_end_while_auth_is_on(guarded, auth):
    token = await auth.enable_with_root()
    async with bearing(guarded, token) as root:
        lease = (await root.grant(1)).ID
        await root.put(b"k", lease=lease)
        async with root.watch() as watch:
            await watch.create(b"k")
            (event,) = await watch.events(1)
            assert event.type == event.DELETE


# -- watches -------------------------------------------------------------------------------


def refusal(response: pb.WatchResponse) -> str:
    assert (response.created, response.canceled, response.watch_id) == (True, True, -1)
    return response.cancel_reason


async def test_a_watch_needs_to_read_all_its_keys(as_user):
    alice = await as_user((READ, b"a", b"c"), (WRITE, b"c", b"d"))
    async with alice.watch() as watch:
        for key, end in ((b"c", b""), (b"a", b"d"), (b"a", b"\0"), (b"", b"\0"), (b"", b"")):
            reason = refusal(await watch.create(key, end))
            assert reason == f"rpc error: code = PermissionDenied desc = {DENIED.text}"
        assert not (await watch.create(b"a", b"c")).canceled


async def test_a_watch_of_nobody_is_refused_and_the_stream_goes_on(guarded, auth):
    await auth.enable_with_root()
    async with Client(guarded.target) as anybody, anybody.watch() as watch:
        for _ in range(2):
            reason = refusal(await watch.create(b"a"))
            assert reason == f"rpc error: code = InvalidArgument desc = {NOBODY.text}"


async def test_a_watch_with_a_forged_token_is_refused(guarded, auth):
    await auth.enable_with_root()
    async with bearing(guarded, "x") as forger, forger.watch() as watch:
        reason = refusal(await watch.create(b"a"))
        assert reason == f"rpc error: code = Unauthenticated desc = {BAD_TOKEN.text}"


async def test_a_watch_from_before_time_is_refused_for_that(guarded, auth):
    await auth.enable_with_root()
    async with Client(guarded.target) as anybody, anybody.watch() as watch:
        reason = refusal(await watch.create(b"a", start_revision=-1))
        assert reason == "etcdserver: mvcc: required revision has been compacted"


async def test_the_permission_of_a_watch_is_looked_at_when_it_is_created_only(as_user, auth):
    alice = await as_user((READ, b"a", b""))
    async with alice.watch() as watch:
        await watch.create(b"a")
        await auth.delete_user("alice")
        await auth.client.put(b"a")
        (event,) = await watch.events(1)
        assert event.kv.key == b"a"


async def test_a_watch_of_before_auth_was_enabled_goes_on(guarded, auth):
    async with Client(guarded.target) as anybody, anybody.watch() as watch:
        await watch.create(b"a")
        auth.client.metadata = (("token", await auth.enable_with_root()),)
        await auth.client.put(b"a")
        await watch.events(1)


# -- changes while clients are at it -------------------------------------------------------


async def test_a_permission_counts_from_the_moment_it_is_given_until_it_is_taken(as_user, auth):
    alice = await as_user()
    for _ in range(2):
        with refused(DENIED):
            await alice.put(b"k")
        await auth.grant("alice", WRITE, b"k")
        await alice.put(b"k")
        await auth.revoke("alice", b"k")


async def test_requests_beside_changes_of_auth_are_answered_or_told_to_try_again(as_user, auth):
    alice = await as_user(EVERYTHING)

    async def change() -> None:
        for _ in range(10):
            await auth.grant("alice", READ, b"elsewhere")

    refusals: set[Refusal] = set()

    async def use() -> None:
        for number in range(50):
            try:
                await alice.put(b"k", b"%d" % number)
                await alice.get(b"k")
            except grpc.aio.AioRpcError as error:
                refusals.add(Refusal(error.code(), error.details() or ""))

    await asyncio.gather(change(), *(use() for _ in range(4)))
    assert refusals <= {OLD}
