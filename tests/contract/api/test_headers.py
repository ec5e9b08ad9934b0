"""The response header and the store's revision (contract 2.1; traps T1, T6, T8, T51)."""

from __future__ import annotations

import signal

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client


async def test_an_empty_store_is_at_revision_1_and_holds_nothing(fresh):
    """T6, T51: Kubernetes' tests compare resourceVersion 2 literally."""
    async with Client(fresh.target) as client:
        everything = await client.get(b"\0", b"\0")
        assert (everything.header.revision, everything.count) == (1, 0)
        assert (await client.put(b"a")).header.revision == 2


async def test_identities_are_set_and_the_same_in_every_answer(client, prefix):
    headers = [
        (await client.put(prefix)).header,
        (await client.get(prefix)).header,
        (await client.delete(prefix)).header,
        (await client.txn()).header,
        (await client.grant(1000)).header,
        (await client.time_to_live(1)).header,
        (await client.call("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)).header,
        (await client.call("Maintenance/HashKV", pb.HashKVRequest(), pb.HashKVResponse)).header,
        (await client.call("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse)).header,
        (await client.compact(await client.revision())).header,
    ]
    async with client.watch() as stream:
        headers.append((await stream.create(prefix)).header)
    identities = {(h.cluster_id, h.member_id, h.raft_term) for h in headers}
    assert len(identities) == 1
    assert all(identities.pop())


async def test_what_changes_nothing_tells_the_current_revision(client, prefix):
    """T8."""
    revision = (await client.put(prefix)).header.revision
    lease = await client.grant(1000)
    for answer in (
        lease,
        await client.get(prefix),
        await client.delete(prefix + b"missing"),
        await client.txn(),
        await client.time_to_live(lease.ID),
        (await client.keep_alive(lease.ID))[0],
        await client.revoke(lease.ID),
        await client.call("Lease/LeaseLeases", pb.LeaseLeasesRequest(), pb.LeaseLeasesResponse),
        await client.call("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse),
        await client.call("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse),
    ):
        assert answer.header.revision == revision, type(answer).__name__


@pytest.mark.parametrize("crash", [True, False], ids=["killed", "stopped"])
async def test_a_restart_keeps_keys_revision_and_identity(launch, kind, crash):
    """T1."""
    if kind.startswith("memory"):
        return
    server = launch(kind)
    async with Client(server.target) as client:
        for number in range(20):
            await client.put(b"%02d" % number, b"%d" % number)
        await client.delete(b"05", b"10")
        before = await client.get(b"\0", b"\0")
    if crash:
        server.kill()
    else:
        assert server.stop() in {0, -signal.SIGTERM}
    server.start()
    async with Client(server.target) as client:
        after = await client.get(b"\0", b"\0")
    assert after.kvs == before.kvs
    assert after.header.revision == before.header.revision
    assert after.header.cluster_id == before.header.cluster_id
    assert after.header.member_id == before.header.member_id
    server.close()


async def test_history_and_compaction_survive_a_crash(launch, kind):
    """T1, T12."""
    if kind.startswith("memory"):
        return
    server = launch(kind)
    async with Client(server.target) as client:
        for number in range(10):
            await client.put(b"a", b"%d" % number)
        await client.compact(5)
    server.kill()
    server.start()
    async with Client(server.target) as client:
        assert (await client.get(b"a", revision=5)).kvs[0].value == b"3"
        async with client.watch() as stream:
            await stream.create(b"a", start_revision=5, prev_kv=True)
            events = await stream.events(7)
            assert [event.kv.mod_revision for event in events] == list(range(5, 12))
            await stream.create(b"a", start_revision=4)
            assert (await stream.next()).compact_revision == 5
    server.close()
