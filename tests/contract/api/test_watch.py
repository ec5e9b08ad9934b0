"""Watch streams: created and canceled, shared, slow, ended (contract 2.7)."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio
import pytest

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, Code

PUT, DELETE = kv_pb2.Event.PUT, kv_pb2.Event.DELETE
NOPUT, NODELETE = 0, 1


# Creating


async def test_created_comes_first_and_tells_the_current_revision(client, prefix):
    """T27, T30: clients resume from it."""
    revision = (await client.put(prefix)).header.revision
    async with client.watch() as stream:
        created = await stream.create(prefix)
    assert created.created
    assert not created.canceled
    assert not created.events
    assert created.header.revision == revision


async def test_ids_are_given_from_zero(client, prefix):
    """T27: zero is a valid id, and absent on the wire."""
    async with client.watch() as stream:
        assert [(await stream.create(prefix)).watch_id for _ in range(3)] == [0, 1, 2]


async def test_created_answers_come_in_the_order_of_the_requests(client, prefix):
    async with client.watch() as stream:
        for chosen in (30, 10, 20):
            create = pb.WatchCreateRequest(key=prefix, watch_id=chosen)
            await stream.send(pb.WatchRequest(create_request=create))
        assert [(await stream.next()).watch_id for _ in range(3)] == [30, 10, 20]


@pytest.mark.parametrize("chosen", [7, -3, 1 << 40])
async def test_a_client_may_choose_the_id(client, prefix, chosen):
    async with client.watch() as stream:
        assert (await stream.create(prefix, watch_id=chosen)).watch_id == chosen
        await client.put(prefix)
        assert (await stream.next()).watch_id == chosen


async def test_the_server_skips_ids_that_clients_chose(client, prefix):
    async with client.watch() as stream:
        await stream.create(prefix, watch_id=1)
        assert [(await stream.create(prefix)).watch_id for _ in range(2)] == [0, 2]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"watch_id": 7}, "mvcc: duplicate watch ID provided on the WatchStream"),
        ({"range_end": b"\1"}, "mvcc: watcher range is empty"),
        ({"start_revision": -1}, "etcdserver: mvcc: required revision has been compacted"),
    ],
    ids=["duplicate id", "empty range", "negative start"],
)
async def test_a_bad_watch_is_created_and_canceled_with_a_reason(client, prefix, fields, reason):
    """The stream and its other watches go on."""
    async with client.watch() as stream:
        await stream.create(prefix, watch_id=7)
        create = pb.WatchCreateRequest(key=prefix, **fields)
        await stream.send(pb.WatchRequest(create_request=create))
        refused = await stream.next()
        assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)
        assert (refused.cancel_reason, refused.compact_revision) == (reason, 0)
        await client.put(prefix)
        assert (await stream.next()).watch_id == 7


async def test_an_empty_key_is_taken_as_nul(client, prefix):
    async with client.watch() as stream:
        await stream.create(b"", b"\0")
        await client.put(prefix)
        assert (await stream.next()).events[0].kv.key == prefix


# Canceling and the stream


async def test_a_canceled_watch_is_confirmed_and_ends(client, prefix):
    """T34."""
    async with client.watch() as stream:
        await stream.create(prefix, watch_id=1)
        await stream.create(prefix, watch_id=2)
        await stream.cancel(1)
        canceled = await stream.next()
        assert (canceled.watch_id, canceled.canceled, canceled.cancel_reason) == (1, True, "")
        await client.put(prefix)
        await client.put(prefix)
        assert [(await stream.next()).watch_id for _ in range(2)] == [2, 2]


async def test_the_id_of_a_canceled_watch_may_be_used_again(client, prefix):
    async with client.watch() as stream:
        await stream.create(prefix, watch_id=5)
        await stream.cancel(5)
        assert (await stream.next()).canceled
        assert (await stream.create(prefix, watch_id=5)).watch_id == 5


@pytest.mark.parametrize(
    "request_",
    [
        pb.WatchRequest(),
        pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=99)),
        b"\x7a\x02\x08\x01",
    ],
    ids=["empty", "cancel of an unknown id", "unknown kind"],
)
async def test_a_request_without_meaning_is_ignored(client, prefix, request_):
    """T58: the stream goes on."""
    async with client.watch() as stream:
        await stream.create(prefix)
        await stream.send(request_)
        await client.put(prefix)
        assert len((await stream.next()).events) == 1


async def test_half_closing_does_not_end_the_events(client, prefix):
    """T58."""
    async with client.watch() as stream:
        await stream.create(prefix)
        await stream.half_close()
        await client.put(prefix, b"still")
        assert (await stream.next()).events[0].kv.value == b"still"


async def test_a_client_that_goes_away_is_forgotten(client, prefix):
    for _ in range(50):
        async with client.watch() as stream:
            await stream.create(prefix)
    await client.put(prefix)
    assert (await client.get(prefix)).count == 1


async def test_a_deadline_ends_the_stream(client, prefix):
    async with client.watch(timeout=0.3) as stream:
        await stream.create(prefix)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stream.next()
    assert error.value.code() in {Code.DEADLINE_EXCEEDED, Code.CANCELLED}


async def test_many_watches_share_a_stream(client, prefix):
    async with client.watch() as stream:
        for number in range(100):
            await stream.create(prefix + b"%d" % (number % 10))
        await client.put(prefix + b"3")
        ids = {(await stream.next()).watch_id for _ in range(10)}
    assert ids == set(range(3, 100, 10))


async def test_a_slow_client_neither_blocks_others_nor_loses_events(client, server, prefix):
    """T31."""
    async with Client(server.target) as slow:
        call: Any = slow.channel.stream_stream("/etcdserverpb.Watch/Watch")()
        create = pb.WatchCreateRequest(key=prefix)
        await call.write(pb.WatchRequest(create_request=create).SerializeToString())
        assert pb.WatchResponse.FromString(await call.read()).created
        async with client.watch() as stream:
            await stream.create(prefix)
            for number in range(60):
                await client.put(prefix, b"%02d" % number + bytes(500_000))
                (event,) = (await stream.next()).events
                assert event.kv.value[:2] == b"%02d" % number
        seen: list[bytes] = []
        while len(seen) < 60:
            response = pb.WatchResponse.FromString(await asyncio.wait_for(call.read(), 20))
            seen += [event.kv.value[:2] for event in response.events]
        call.cancel()
    assert seen == [b"%02d" % number for number in range(60)]


async def test_a_connection_carries_hundreds_of_streams(client, prefix):
    """2.13: concurrent streams are not limited."""
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(client.watch()) for _ in range(300)]
        await asyncio.gather(*(stream.create(prefix) for stream in streams))
        await client.put(prefix, b"x")
        answers = await asyncio.gather(*(stream.next(30) for stream in streams))
    assert [len(answer.events) for answer in answers] == [1] * 300


async def test_a_server_stops_in_order_under_open_streams(launch, kind):
    server = launch(kind)
    async with Client(server.target) as client, client.watch() as stream:
        await stream.create(b"a")
        await client.put(b"a")
        assert len((await stream.next()).events) == 1
        assert await asyncio.to_thread(server.stop) in {0, -signal.SIGTERM}
        with pytest.raises((grpc.aio.AioRpcError, EOFError)):
            await stream.next()


async def test_an_event_arrives_without_the_delay_of_a_poll(client, prefix):
    """T35: a hundred in turn take far less than a hundred polling intervals."""
    async with client.watch() as stream:
        await stream.create(prefix)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(100):
            await client.put(prefix)
            await stream.next()
        assert loop.time() - begun < 5
