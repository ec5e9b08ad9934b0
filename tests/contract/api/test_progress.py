"""Progress notifications (contract 2.7, 3.4; traps T22, T23, T24, T54)."""

from __future__ import annotations

import asyncio

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, prefix_end


def is_progress(response: pb.WatchResponse) -> bool:
    """Say whether clients take it for a progress notification (clientv3's rule)."""
    return bool(
        not response.events
        and not response.canceled
        and not response.created
        and not response.compact_revision
        and response.header.revision
    )


async def test_manual_progress_is_for_the_whole_stream(client, prefix):
    """T23: id -1 and the current revision."""
    async with client.watch() as stream:
        await stream.create(prefix)
        await stream.create(prefix + b"other")
        revision = (await client.put(prefix + b"unwatched")).header.revision
        answer = await stream.progress()
    assert is_progress(answer)
    assert (answer.watch_id, answer.header.revision) == (-1, revision)


async def test_progress_covers_a_write_acknowledged_before_it_was_asked_for(client, prefix):
    """3.4: kube-apiserver's consistent lists wait for exactly this."""
    async with client.watch() as stream:
        await stream.create(prefix)
        for _ in range(10):
            revision = (await client.put(prefix + b"unwatched")).header.revision
            assert (await stream.progress()).header.revision >= revision


async def test_progress_follows_every_event_up_to_its_revision(client, prefix):
    """T22: no event at or below a progress revision comes after it."""

    async def write() -> None:
        for number in range(300):
            await client.put(prefix, b"%d" % number)

    async with client.watch() as stream:
        await stream.create(prefix, progress_notify=True)
        writing = asyncio.create_task(write())
        reached, seen, answers = 0, 0, 0
        while seen < 300:
            if answers + seen < 4000:
                await stream.request_progress()
            response = await stream.next()
            if response.events:
                assert all(event.kv.mod_revision > reached for event in response.events)
                seen += len(response.events)
            else:
                assert response.header.revision >= reached
                answers += 1
            reached = response.header.revision
        await writing
    assert answers


async def test_progress_without_watches_is_not_answered(client, prefix):
    """What is answered first is the watch created later."""
    async with client.watch() as stream:
        await stream.request_progress()
        assert (await stream.create(prefix)).created


async def test_no_progress_is_told_before_a_watch_from_the_future_begins(client, prefix):
    """T24, T54."""
    async with client.watch() as stream:
        await stream.create(prefix)
        start = await client.revision() + 2
        await stream.create(prefix, start_revision=start, watch_id=5)
        await stream.request_progress()
        assert (await client.put(prefix)).header.revision == start - 1
        first = await stream.next()
        assert (first.watch_id, len(first.events)) == (0, 1)
        assert (await client.put(prefix)).header.revision == start
        both = [await stream.next() for _ in range(2)]
        assert {response.watch_id for response in both} == {0, 5}
        assert (await stream.progress()).header.revision >= start


async def test_a_watch_that_asks_is_notified_when_idle(client, prefix):
    """T22: periodic progress has the watch's own id."""
    async with client.watch() as stream:
        await stream.create(prefix, watch_id=4, progress_notify=True)
        revision = (await client.put(prefix + b"unwatched")).header.revision
        answer = await stream.next()
        while answer.header.revision < revision:
            answer = await stream.next()
    assert is_progress(answer)
    assert answer.watch_id == 4


async def test_a_watch_that_does_not_ask_is_not_notified(client, prefix):
    async with client.watch() as stream:
        await stream.create(prefix, watch_id=1, progress_notify=True)
        await stream.create(prefix + b"quiet", watch_id=2)
        assert [(await stream.next()).watch_id for _ in range(3)] == [1, 1, 1]


async def test_progress_comes_after_replayed_history(client, prefix):
    """T22, T54: a watch that catches up holds progress back."""
    first = (await client.put(prefix)).header.revision
    for number in range(200):
        await client.put(prefix, b"%d" % number + bytes(20_000))
    async with client.watch() as stream:
        await stream.create(prefix, start_revision=first)
        await stream.request_progress()
        seen = 0
        while seen < 201:
            response = await stream.next()
            assert response.events
            seen += len(response.events)
        assert (await stream.progress()).header.revision >= first + 200


async def test_idle_watches_of_other_connections_get_progress_at_once(client, server, prefix):
    """3.4: seventy streams each ask every 100 ms while a consistent list waits."""
    async with Client(server.target) as other, other.watch() as stream:
        await stream.create(prefix, prefix_end(prefix), prev_kv=True, progress_notify=True)
        for _ in range(20):
            revision = (await client.put(prefix[:-1])).header.revision
            answer = await stream.progress()
            while answer.header.revision < revision:
                answer = await stream.progress()
            assert is_progress(answer)


async def test_a_watch_that_compaction_cut_off_neither_keeps_its_id_nor_holds_up_progress(
    client, prefix
):
    """T23, T25."""
    old = (await client.put(prefix)).header.revision
    await client.compact((await client.put(prefix)).header.revision)
    async with client.watch() as stream:
        await stream.create(prefix, watch_id=1)
        await stream.create(prefix, watch_id=2, start_revision=old)
        assert (await stream.next()).compact_revision
        assert (await stream.create(prefix, watch_id=2)).watch_id == 2
        await stream.request_progress()
        assert is_progress(await stream.next())
