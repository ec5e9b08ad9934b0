"""One server on a shared log, through real clients: what must not wait for the database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.backends.memory import Log
from tests.support.client import Client
from tests.support.in_process import Slow, serving

LEADER = (("hasleader", "true"),)


async def test_a_progress_request_that_waits_for_the_database_stops_no_other_request(
    tmp_path: Path,
) -> None:
    slow = Slow()
    async with serving(tmp_path, slow) as (_, client), client.watch() as stream:
        await stream.create(b"a")
        slow.open.clear()
        slow.waiting.clear()
        await asyncio.to_thread(slow.waiting.wait, 10)
        for _ in range(3):
            await stream.request_progress()
        created = await stream.create(b"b")
        assert created.created, "it is answered before the progress request"
        slow.open.set()
        progress = await stream.next()
        assert not progress.events
        assert not progress.created
        assert progress.header.revision == 1


async def test_renewals_of_many_leases_on_one_stream_share_statements(tmp_path: Path) -> None:
    leases = range(1, 301)
    async with serving(tmp_path) as (_, client):
        await asyncio.gather(*(client.grant(60, lease) for lease in leases))
        raw = client.channel.stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=pb.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=pb.LeaseKeepAliveResponse.FromString,
        )
        call: Any = raw()
        async with asyncio.timeout(10):  # at ten statements a second, one each would take 30 s
            for lease in leases:
                await call.write(pb.LeaseKeepAliveRequest(ID=lease))
            answers = [await call.read() for _ in leases]
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
        assert [(answer.ID, answer.TTL) for answer in answers] == [(n, 60) for n in leases]


async def test_a_renewal_that_finds_no_database_ends_the_stream_as_etcd_does(
    tmp_path: Path,
) -> None:
    slow = Slow()
    async with serving(tmp_path, slow) as (shim, client):
        await client.grant(60, 1)
        slow.away = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while True:
                await client.keep_alive(1)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        slow.away = False
        async with asyncio.timeout(10):
            while not shim.health.serving:  # noqa: ASYNC110 - it looks by itself
                await asyncio.sleep(0.01)
        assert (await client.keep_alive(1))[0].TTL == 60


async def test_watches_stay_while_the_database_is_away_and_new_ones_are_refused(
    tmp_path: Path,
) -> None:
    log, slow = Log(), Slow()
    async with serving(tmp_path, slow, log) as (shim, client), client.watch() as stream:
        await stream.create(b"k")
        slow.away = True
        async with asyncio.timeout(10):
            while shim.health.serving:  # noqa: ASYNC110 - it looks by itself
                await asyncio.sleep(0.01)
        async with Client(f"unix:{tmp_path}/grpc.sock", metadata=LEADER) as strict:
            with pytest.raises(grpc.aio.AioRpcError, match="no leader"):
                await strict.get(b"k", serializable=True)
        shim.desk._leader_lost()
        slow.away = False
        async with asyncio.timeout(10):
            while not shim.health.serving:  # noqa: ASYNC110 - it looks by itself
                await asyncio.sleep(0.01)
        await client.put(b"k", b"v")
        assert len(await stream.events(1)) == 1


async def test_the_member_list_shows_every_server_with_its_urls_and_one_leader(
    tmp_path: Path,
) -> None:
    log = Log()
    request, answer = pb.MemberListRequest(linearizable=True), pb.MemberListResponse
    async with (
        serving(tmp_path, log=log, name="one") as (one, client),
        serving(tmp_path, log=log, name="two") as (two, other),
    ):
        await other.call("Cluster/MemberList", request, answer)
        listed = await client.call("Cluster/MemberList", request, answer)
        found = {m.ID: (m.name, list(m.clientURLs)) for m in listed.members}
        assert found == {
            one.headers.member_id: ("one", [f"unix://{tmp_path}/one.sock"]),
            two.headers.member_id: ("two", [f"unix://{tmp_path}/two.sock"]),
        }
        statuses = [
            await each.call("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
            for each in (client, other)
        ]
        assert len({status.leader for status in statuses}) == 1
    async with serving(tmp_path, log=log, name="one") as (again, _):
        assert again.headers.member_id == one.headers.member_id


async def test_streams_that_want_a_leader_go_to_another_server_where_there_is_one(
    tmp_path: Path,
) -> None:
    log, slow = Log(), Slow()
    async with (
        serving(tmp_path, slow, log, name="one") as (one, _),
        serving(tmp_path, log=log, name="two"),
        Client(f"unix:{tmp_path}/one.sock", metadata=LEADER) as strict,
        strict.watch() as stream,
    ):
        await stream.create(b"k")
        await one.members.beat()
        assert not one.members.alone
        one.desk._leader_lost()
        with pytest.raises(grpc.aio.AioRpcError, match="no leader"):
            await stream.next()
