"""What watches tell: ranges, events, previous values, fragments, filters (contract 2.7)."""

from __future__ import annotations

import pytest

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import delete_op, prefix_end, put_op

PUT, DELETE = kv_pb2.Event.PUT, kv_pb2.Event.DELETE
NOPUT, NODELETE = 0, 1


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


@pytest.mark.parametrize("live", [True, False])
async def test_a_key_made_anew_in_the_revision_that_deletes_it_has_no_prev_kv(client, high, live):
    """As for every create (etcd: v3rpc/watch.go, IsCreateEvent)."""
    before = (await client.put(high, b"old")).header.revision
    made_anew = [delete_op(high, b"\0"), put_op(high, b"new")]
    async with client.watch() as stream:
        if live:
            await stream.create(high, prev_kv=True)
            await client.txn(success=made_anew)
        else:
            await client.txn(success=made_anew)
            await stream.create(high, prev_kv=True, start_revision=before + 1)
        delete, create = await stream.events(2)
    assert (delete.prev_kv.value, create.kv.value) == (b"old", b"new")
    assert not create.HasField("prev_kv")


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
