"""Maintenance: Status, Alarm, Defragment, MoveLeader, hashes (contract 2.9; trap T41)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import (
    COMPACTED,
    FUTURE,
    NO_SPACE,
    Client,
    Code,
    Refusal,
    delete_op,
    get_op,
    prefix_end,
    put_op,
    refused,
    txn_op,
)

GET, ACTIVATE, DEACTIVATE = 0, 1, 2
NOSPACE, CORRUPT = 1, 2
DATA_LOSS = Refusal(Code.DATA_LOSS, "etcdserver: corrupt cluster")


async def status(client: Client) -> pb.StatusResponse:
    return await client.call("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)


async def hash_kv(client: Client, revision: int = 0) -> pb.HashKVResponse:
    request = pb.HashKVRequest(revision=revision)
    return await client.call("Maintenance/HashKV", request, pb.HashKVResponse)


async def alarm(client: Client, action: int, kind: int = 0, member: int = 0) -> list[int]:
    request = pb.AlarmRequest(action=action, memberID=member, alarm=kind)  # type: ignore[arg-type]
    answer = await client.call("Maintenance/Alarm", request, pb.AlarmResponse)
    return [found.alarm for found in answer.alarms]


# Status


async def test_the_version_is_a_plain_modern_release(client):
    """T41: Kubernetes asks for progress from 3.5.13 on, and a suffix would sort below."""
    version = (await status(client)).version
    assert re.fullmatch(r"3\.\d+\.\d+", version)
    assert tuple(map(int, version.split("."))) >= (3, 5, 13)


async def test_the_member_that_answers_leads(client):
    answer = await status(client)
    assert answer.leader == answer.header.member_id != 0
    assert not answer.isLearner
    assert not answer.errors


async def test_status_tells_sizes_revision_and_indexes(client, prefix, kind):
    await client.put(prefix, bytes(100_000))
    answer = await status(client)
    assert 0 < answer.dbSizeInUse <= answer.dbSize
    # A database server has limits of its own: there is none by default.
    has_quota = kind.partition("-")[0] in {"etcd", "memory", "sqlite"}
    assert answer.dbSizeQuota == (2 << 30 if has_quota else 0)
    assert answer.header.revision == await client.revision()
    assert answer.raftTerm == answer.header.raft_term != 0
    assert 0 < answer.raftAppliedIndex <= answer.raftIndex
    assert re.fullmatch(r"3\.\d+\.0", answer.storageVersion)
    assert answer.HasField("downgradeInfo")


async def test_the_applied_index_grows_with_writes(client, prefix):
    before = (await status(client)).raftAppliedIndex
    await client.put(prefix)
    assert (await status(client)).raftAppliedIndex > before


# HashKV


async def test_the_same_state_has_the_same_hash(client, prefix):
    revision = (await client.put(prefix, b"x")).header.revision
    first = await hash_kv(client)
    assert (await hash_kv(client)).hash == first.hash
    assert (await hash_kv(client, revision)).hash == first.hash


async def test_a_change_changes_the_hash_and_not_that_of_the_past(client, prefix):
    revision = (await client.put(prefix, b"x")).header.revision
    before = (await hash_kv(client)).hash
    await client.put(prefix, b"x")
    assert (await hash_kv(client)).hash != before
    assert (await hash_kv(client, revision)).hash == before


async def test_a_hash_tells_its_revision_and_the_compacted_one(client, prefix):
    old = (await client.put(prefix)).header.revision
    at = (await client.put(prefix)).header.revision
    newest = (await client.put(prefix)).header.revision
    await client.compact(at)
    answer = await hash_kv(client, newest)
    assert (answer.hash_revision, answer.compact_revision) == (newest, at)
    with refused(COMPACTED):
        await hash_kv(client, old)
    with refused(FUTURE):
        await hash_kv(client, at + 100_000)


async def test_the_hash_of_everything_changes_with_leases_too(fresh, prefix):
    """Where no lease of another case may expire meanwhile."""
    async with Client(fresh.target) as client:

        async def whole() -> pb.HashResponse:
            return await client.call("Maintenance/Hash", pb.HashRequest(), pb.HashResponse)

        await client.put(prefix, b"x")
        first = await whole()
        assert first.hash
        assert (await whole()).hash == first.hash
        assert first.header.revision == await client.revision()
        await client.grant(1000)
        assert (await whole()).hash != first.hash


# MoveLeader


async def test_the_leader_may_be_moved_to_where_it_is(client):
    """T8: the answer is empty."""
    request = pb.MoveLeaderRequest(targetID=(await status(client)).leader)
    answer = await client.call("Maintenance/MoveLeader", request, pb.MoveLeaderResponse)
    assert not answer.HasField("header")


@pytest.mark.parametrize("target", [0, 1])
async def test_the_leader_is_not_moved_to_nobody(client, target):
    request = pb.MoveLeaderRequest(targetID=target)
    with refused(Refusal(Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee")):
        await client.call("Maintenance/MoveLeader", request, pb.MoveLeaderResponse)


# Defragment


async def test_defragmenting_keeps_everything_and_answers_without_header(client, prefix):
    """T8."""
    for number in range(50):
        await client.put(prefix + b"%02d" % number, bytes(10_000))
    await client.delete(prefix, prefix + b"40")
    await client.compact(await client.revision(), physical=True)
    before = await client.list(prefix)
    request = pb.DefragmentRequest()
    answer = await client.call(
        "Maintenance/Defragment", request, pb.DefragmentResponse, timeout=30
    )
    assert not answer.HasField("header")
    assert (await client.list(prefix)).kvs == before.kvs


# Alarms


@pytest.fixture
async def alarming(client: Client) -> AsyncIterator[int]:
    """Give the member's id, and take all alarms back at the end."""
    member = (await status(client)).header.member_id
    yield member
    for kind in (NOSPACE, CORRUPT):
        await alarm(client, DEACTIVATE, kind, member)


async def test_without_alarms_none_is_listed(client):
    assert await alarm(client, GET) == []


async def test_an_alarm_is_listed_until_it_is_taken_back(client, alarming):
    assert await alarm(client, ACTIVATE, NOSPACE, alarming) == [NOSPACE]
    assert await alarm(client, ACTIVATE, NOSPACE, alarming) == [NOSPACE]
    assert await alarm(client, GET) == [NOSPACE]
    assert await alarm(client, GET, CORRUPT) == []
    assert await alarm(client, DEACTIVATE, NOSPACE, alarming) == [NOSPACE]
    assert await alarm(client, DEACTIVATE, NOSPACE, alarming) == []
    assert await alarm(client, GET) == []


@pytest.mark.parametrize(("action", "number"), [(5, NOSPACE), (ACTIVATE, 7)])
async def test_an_alarm_that_nobody_knows_is_refused(fresh, action, number):
    async with Client(fresh.target) as client:
        with refused(Refusal(Code.INVALID_ARGUMENT, "etcdserver: unknown alarm or action")):
            await alarm(client, action, number)
        assert not (await status(client)).errors


async def test_an_alarm_that_nobody_knows_is_not_active(client):
    assert await alarm(client, DEACTIVATE, 7) == []
    assert await alarm(client, GET, 7) == []


async def test_a_corrupt_store_is_still_read(client, prefix, alarming):
    lease = (await client.grant(1000)).ID
    await client.put(prefix)
    await alarm(client, ACTIVATE, CORRUPT, alarming)
    assert (await client.get(prefix)).count == 1
    assert (await client.txn(success=[get_op(prefix)])).succeeded
    assert (await client.keep_alive(lease))[0].TTL == 1000
    for write in (
        client.put(prefix),
        client.delete(prefix),
        client.txn(success=[put_op(prefix)]),
        client.grant(1000),
        client.revoke(lease),
        client.compact(1),
    ):
        with refused(DATA_LOSS):
            await write
    await alarm(client, DEACTIVATE, CORRUPT, alarming)
    await client.put(prefix)


async def test_an_alarm_takes_no_revision_and_shows_in_status(client, alarming):
    """2.1; the text is etcd's, whose Go prints one space or two, by chance of its build."""
    before = await client.revision()
    await alarm(client, ACTIVATE, NOSPACE, alarming)
    assert await client.revision() == before
    errors = [error.split() for error in (await status(client)).errors]
    assert errors == [[f"memberID:{alarming}", "alarm:NOSPACE"]]


@pytest.mark.parametrize(
    "write",
    [
        lambda client, key: client.put(key),
        lambda client, key: client.grant(1000),
        lambda client, key: client.txn(success=[put_op(key)]),
        lambda client, key: client.txn(failure=[put_op(key)]),
        lambda client, key: client.txn(success=[txn_op(success=[put_op(key)])]),
    ],
    ids=["put", "grant", "txn", "branch not taken", "nested"],
)
async def test_without_space_nothing_that_grows_is_accepted(client, prefix, alarming, write):
    await alarm(client, ACTIVATE, NOSPACE, alarming)
    with refused(NO_SPACE):
        await write(client, prefix)
    await alarm(client, DEACTIVATE, NOSPACE, alarming)
    await write(client, prefix)


async def test_without_space_one_can_still_read_delete_and_compact(client, prefix, alarming):
    lease = (await client.grant(1000)).ID
    await client.put(prefix + b"a")
    await client.put(prefix + b"b", lease=lease)
    await alarm(client, ACTIVATE, NOSPACE, alarming)
    assert (await client.list(prefix)).count == 2
    await client.txn(success=[delete_op(prefix + b"a"), get_op(prefix)])
    assert (await client.keep_alive(lease))[0].TTL == 1000
    await client.revoke(lease)
    await client.delete(prefix, prefix_end(prefix))
    await client.compact(await client.revision())
    await client.call("Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse)
    assert (await client.list(prefix)).count == 0


async def test_a_full_quota_raises_the_alarm(launch, kind):
    """And deleting, compacting, defragmenting and disarming lets writes in again."""
    if kind == "memory":
        return
    server = launch(kind, "--quota-backend-bytes=4000000")
    async with Client(server.target) as client:
        assert (await status(client)).dbSizeQuota == 4_000_000
        with refused(NO_SPACE):
            for number in range(100):
                await client.put(b"%d" % number, bytes(500_000))
        assert await alarm(client, GET) == [NOSPACE]
        await client.delete(b"\0", b"\0")
        await client.compact(await client.revision(), physical=True)
        await client.call(
            "Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse, timeout=30
        )
        await alarm(client, DEACTIVATE, NOSPACE, (await status(client)).header.member_id)
        await client.put(b"again")
    server.close()
