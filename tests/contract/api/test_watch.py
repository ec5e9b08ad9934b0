"""Watch.Watch (contract 2.7; traps T3, T4, T24 to T35, T54, T58)."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio
import pytest

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, Code, delete_op, prefix_end, put_op

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


# Ranges


async def test_one_key_is_watched_without_its_neighbours(client, prefix):
    async with client.watch() as stream:
        await stream.create(prefix + b"a")
        await client.put(prefix + b"aa")
        await client.put(prefix)
        await client.put(prefix + b"a", b"mine")
        assert (await stream.next()).events[0].kv.value == b"mine"


async def test_a_prefix_is_watched(client, prefix):
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix))
        await client.put(prefix_end(prefix))
        await client.put(prefix)
        await client.put(prefix + b"\xff\xff")
        keys = [event.kv.key for event in await stream.events(2)]
    assert keys == [prefix, prefix + b"\xff\xff"]


async def test_from_key_on_is_watched(client, high):
    async with client.watch() as stream:
        await stream.create(high + b"b", b"\0")
        await client.put(high + b"a")
        await client.put(high + b"c")
        assert (await stream.next()).events[0].kv.key == high + b"c"


# Events


async def test_a_put_event_is_the_key_as_stored(client, prefix):
    lease = (await client.grant(1000)).ID
    async with client.watch() as stream:
        await stream.create(prefix)
        await client.put(prefix, b"1")
        await client.put(prefix, b"2", lease=lease)
        first, second = await stream.events(2)
    assert (first.type, first.kv.create_revision) == (PUT, first.kv.mod_revision)
    assert second.kv == (await client.get(prefix)).kvs[0]


async def test_a_delete_event_has_key_and_revision_only(client, prefix):
    """T33."""
    await client.put(prefix, b"x")
    async with client.watch() as stream:
        await stream.create(prefix)
        deleted = (await client.delete(prefix)).header.revision
        (event,) = (await stream.next()).events
    assert event == kv_pb2.Event(type=DELETE, kv=kv_pb2.KeyValue(key=prefix, mod_revision=deleted))


async def test_prev_kv_comes_with_changes_and_deletes_and_not_with_a_create(client, prefix):
    """T33."""
    async with client.watch() as stream:
        await stream.create(prefix, prev_kv=True)
        await client.put(prefix, b"1")
        (before,) = (await client.get(prefix)).kvs
        await client.put(prefix, b"2")
        await client.delete(prefix)
        create, change, delete = await stream.events(3)
    assert not create.HasField("prev_kv")
    assert change.prev_kv == before
    assert (delete.prev_kv.value, delete.prev_kv.version) == (b"2", 2)


async def test_prev_kv_is_in_replayed_history_too(client, prefix):
    start = (await client.put(prefix, b"1")).header.revision
    await client.put(prefix, b"2")
    await client.delete(prefix)
    async with client.watch() as stream:
        await stream.create(prefix, prev_kv=True, start_revision=start)
        create, change, delete = await stream.events(3)
    assert not create.HasField("prev_kv")
    assert (change.prev_kv.value, delete.prev_kv.value) == (b"1", b"2")


async def test_prev_kv_is_absent_unless_asked_for(client, prefix):
    await client.put(prefix)
    async with client.watch() as stream:
        await stream.create(prefix)
        await client.put(prefix)
        assert not (await stream.next()).events[0].HasField("prev_kv")


async def test_prev_kv_that_is_compacted_is_absent(client, prefix):
    await client.put(prefix, b"old")
    changed = (await client.put(prefix, b"new")).header.revision
    await client.compact(changed, physical=True)
    async with client.watch() as stream:
        await stream.create(prefix, prev_kv=True, start_revision=changed)
        (event,) = await stream.events(1)
    assert event.kv.value == b"new"
    assert not event.HasField("prev_kv")


async def test_one_revision_is_one_response(client, prefix):
    """T4, T28."""
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix))
        await client.txn(success=[put_op(prefix + b"%03d" % n) for n in range(128)])
        response = await stream.next()
        assert len(response.events) == 128
        deleted = await client.delete(prefix, prefix_end(prefix))
        response = await stream.next()
    assert [event.type for event in response.events] == [DELETE] * 128
    assert response.header.revision == deleted.header.revision


async def test_events_of_a_revision_come_in_the_order_of_its_operations(client, prefix):
    await client.put(prefix + b"d")
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix))
        await client.txn(
            success=[put_op(prefix + b"c"), delete_op(prefix + b"d"), put_op(prefix + b"a")]
        )
        events = (await stream.next()).events
    assert [event.kv.key[-1:] for event in events] == [b"c", b"d", b"a"]


async def test_live_revisions_come_one_by_one_each_with_its_header(client, prefix):
    async with client.watch() as stream:
        await stream.create(prefix)
        for _ in range(3):
            revision = (await client.put(prefix)).header.revision
            response = await stream.next()
            assert response.header.revision == revision
            assert [event.kv.mod_revision for event in response.events] == [revision]


async def test_a_large_revision_is_not_cut_without_fragment(client, prefix):
    """T28."""
    for number in range(6):
        await client.put(prefix + b"%d" % number, bytes(1_000_000))
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix), prev_kv=True)
        await client.delete(prefix, prefix_end(prefix))
        response = await stream.next()
    assert (len(response.events), response.fragment) == (6, False)


async def test_a_large_revision_is_cut_with_fragment(client, prefix):
    """T28: all parts but the last say that more comes."""
    for number in range(6):
        await client.put(prefix + b"%d" % number, bytes(1_000_000))
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix), prev_kv=True, fragment=True)
        deleted = await client.delete(prefix, prefix_end(prefix))
        parts = [await stream.next()]
        while parts[-1].fragment:
            parts.append(await stream.next())
    assert len(parts) > 1
    assert all(part.ByteSize() <= 3 << 20 for part in parts)
    assert {part.header.revision for part in parts} == {deleted.header.revision}
    keys = [event.kv.key for part in parts for event in part.events]
    assert keys == [prefix + b"%d" % number for number in range(6)]


async def test_small_revisions_are_not_marked_as_fragments(client, prefix):
    async with client.watch() as stream:
        await stream.create(prefix, fragment=True)
        await client.put(prefix)
        response = await stream.next()
    assert (len(response.events), response.fragment) == (1, False)


@pytest.mark.parametrize("start", [False, True], ids=["live", "history"])
@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ([NOPUT], [DELETE]),
        ([NODELETE], [PUT, PUT]),
        ([NOPUT, NODELETE], []),
        ([9], [PUT, DELETE, PUT]),
    ],
)
async def test_filters_drop_events_and_empty_responses(client, prefix, filters, kept, start):
    """The last put of another watch shows that nothing more came."""
    begin = await client.revision() + 1
    async with client.watch() as stream:
        if not start:
            await stream.create(prefix, filters=filters)
        await client.put(prefix)
        await client.delete(prefix)
        await client.put(prefix)
        if start:
            await stream.create(prefix, filters=filters, start_revision=begin)
        found = [event.type for event in await stream.events(len(kept))]
        await stream.create(prefix + b"end", watch_id=9)
        await client.put(prefix + b"end")
        assert (await stream.next()).watch_id == 9
    assert found == kept


@pytest.mark.parametrize("packed", [b"\x2a\x01\x01", b"\x28\x01"], ids=["packed", "unpacked"])
async def test_filters_arrive_packed_or_unpacked(client, prefix, packed):
    """T58."""
    create = pb.WatchCreateRequest(key=prefix).SerializeToString() + packed
    async with client.watch() as stream:
        await stream.send(b"\x0a" + bytes([len(create)]) + create)
        assert (await stream.next()).created
        await client.put(prefix)
        await client.delete(prefix)
        await client.put(prefix, b"again")
        assert [event.kv.value for event in await stream.events(2)] == [b"", b"again"]


# Where a watch starts


async def test_a_watch_from_now_sees_only_what_follows(client, prefix):
    await client.put(prefix, b"before")
    async with client.watch() as stream:
        await stream.create(prefix)
        await client.put(prefix, b"after")
        assert (await stream.next()).events[0].kv.value == b"after"


async def test_history_is_replayed_from_the_start_revision_on(client, prefix):
    """T29: inclusive."""
    revisions = [(await client.put(prefix, b"%d" % n)).header.revision for n in range(5)]
    async with client.watch() as stream:
        await stream.create(prefix, start_revision=revisions[2])
        events = await stream.events(3)
    assert [event.kv.mod_revision for event in events] == revisions[2:]


async def test_replayed_history_comes_together_under_the_current_revision(client, prefix):
    """T32, T54."""
    first = (await client.put(prefix)).header.revision
    for _ in range(49):
        await client.put(prefix)
    last = (await client.put(prefix + b"other")).header.revision
    async with client.watch() as stream:
        await stream.create(prefix, start_revision=first)
        response = await stream.next()
    assert len(response.events) == 50
    assert response.header.revision == last


async def test_a_long_history_is_replayed_whole_and_revisions_are_not_split(client, prefix):
    """T28, T32: more than one batch of a thousand revisions."""
    first = await client.revision() + 1
    for _ in range(1500):
        await client.txn(success=[put_op(prefix + b"a"), put_op(prefix + b"b")])
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix), start_revision=first)
        seen: list[int] = []
        while len(seen) < 3000:
            revisions = [event.kv.mod_revision for event in (await stream.next()).events]
            assert not set(revisions) & set(seen[-1:])
            seen += revisions
    assert seen == [first + number // 2 for number in range(3000)]


async def test_large_history_is_cut_with_fragment(client, prefix):
    """T28: catching up too, and no part is larger than a client receives."""
    first = await client.revision() + 1
    for number in range(8):
        await client.put(prefix, b"%d" % number + bytes(900_000))
    async with client.watch() as stream:
        await stream.create(prefix, start_revision=first, fragment=True)
        parts = [await stream.next()]
        while len([event for part in parts for event in part.events]) < 8:
            parts.append(await stream.next())
    assert all(part.ByteSize() <= 3 << 20 for part in parts)
    assert not parts[-1].fragment
    values = [event.kv.value[:1] for part in parts for event in part.events]
    assert values == [b"%d" % number for number in range(8)]


async def test_history_and_live_events_join_without_gap_or_repeat(client, prefix):
    """T3, T29, T30."""
    first = (await client.put(prefix, b"0")).header.revision

    async def write() -> None:
        for number in range(1, 200):
            await client.put(prefix, b"%d" % number)

    writing = asyncio.create_task(write())
    streams = []
    try:
        for _ in range(5):
            async with client.watch() as stream:
                await stream.create(prefix, start_revision=first)
                streams.append(await stream.events(200))
    finally:
        await writing
    for events in streams:
        assert [event.kv.value for event in events] == [b"%d" % n for n in range(200)]


async def test_a_watch_from_now_misses_nothing_written_after_created(client, prefix):
    """T30: created with R means every event above R."""

    async def write() -> None:
        for number in range(100):
            await client.put(prefix, b"%d" % number)

    writing = asyncio.create_task(write())
    await asyncio.gather(*(_follow(client, prefix) for _ in range(10)))
    await writing


async def _follow(client: Client, prefix: bytes) -> None:
    async with client.watch() as stream:
        created = await stream.create(prefix)
        last = created.header.revision
        while True:
            event = (await stream.events(1))[0]
            assert event.kv.mod_revision == last + 1
            last = event.kv.mod_revision
            if event.kv.value == b"99":
                return


async def test_a_watch_at_the_compacted_revision_works(client, prefix):
    await client.put(prefix, b"0")
    at = (await client.put(prefix, b"1")).header.revision
    await client.put(prefix, b"2")
    await client.compact(at, physical=True)
    async with client.watch() as stream:
        await stream.create(prefix, start_revision=at)
        assert [event.kv.value for event in await stream.events(2)] == [b"1", b"2"]


async def test_a_tombstone_at_the_compacted_revision_is_replayed(client, prefix):
    """T26."""
    await client.put(prefix)
    at = (await client.delete(prefix)).header.revision
    await client.put(prefix + b"later")
    await client.compact(at, physical=True)
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix), start_revision=at)
        first, second = await stream.events(2)
    assert (first.type, first.kv.key, first.kv.mod_revision) == (DELETE, prefix, at)
    assert (second.type, second.kv.key) == (PUT, prefix + b"later")


async def test_a_watch_below_compaction_is_created_then_canceled(client, prefix):
    """T25."""
    old = (await client.put(prefix)).header.revision
    at = (await client.put(prefix)).header.revision
    await client.compact(at)
    async with client.watch() as stream:
        created = await stream.create(prefix, start_revision=old)
        assert (created.created, created.canceled) == (True, False)
        canceled = await stream.next()
        assert (canceled.canceled, canceled.compact_revision) == (True, at)
        assert (canceled.header.revision, canceled.cancel_reason) == (0, "")
        await stream.create(prefix)
        await client.put(prefix, b"on")
        assert (await stream.next()).events[0].kv.value == b"on"


async def test_a_watch_from_the_future_waits_for_its_start(client, prefix):
    """T24."""
    async with client.watch() as stream:
        start = await client.revision() + 3
        await stream.create(prefix, start_revision=start)
        for _ in range(4):
            await client.put(prefix)
        events = await stream.events(2)
    assert [event.kv.mod_revision for event in events] == [start, start + 1]


async def test_a_compaction_does_not_disturb_a_live_watch(client, prefix):
    """T26: and the previous value is still known."""
    await client.put(prefix, b"0")
    async with client.watch() as stream:
        await stream.create(prefix, prev_kv=True)
        for number in range(1, 6):
            revision = (await client.put(prefix, b"%d" % number)).header.revision
            await client.compact(revision)
        events = await stream.events(5)
    assert [event.kv.value for event in events] == [b"1", b"2", b"3", b"4", b"5"]


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
