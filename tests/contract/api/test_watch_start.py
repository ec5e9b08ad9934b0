"""Where a watch starts: now, in history, at and below compaction, in the future (contract 2.7)."""

from __future__ import annotations

import asyncio

from datastore.etcdpb import kv_pb2
from tests.support.client import Client, prefix_end, put_op

PUT, DELETE = kv_pb2.Event.PUT, kv_pb2.Event.DELETE
NOPUT, NODELETE = 0, 1


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
