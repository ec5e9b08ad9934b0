"""What kube-apiserver 1.30 to 1.37 sends, and how it reads the answers (contract 3.2 to 3.6)."""

from __future__ import annotations

import asyncio

import pytest

from datastore.etcdpb import kv_pb2
from tests.support.client import (
    COMPACTED,
    Client,
    delete_op,
    get_op,
    prefix_end,
    put_op,
    refused,
    when,
)

HAS_LEADER = (("hasleader", "true"),)


async def test_a_create_tells_its_revision_outside_and_inside(client, prefix):
    """T8: up to 1.31 the put's own header is read, from 1.32 on the transaction's."""
    answer = await client.txn([when(prefix, mod_revision=0)], [put_op(prefix, b"k8s\0\xff")])
    assert answer.succeeded
    inner = answer.responses[0].response_put
    assert inner.header.revision == answer.header.revision
    again = await client.txn([when(prefix, mod_revision=0)], [put_op(prefix, b"other")])
    assert (again.succeeded, len(again.responses)) == (False, 0)


async def test_an_update_by_an_old_revision_brings_the_current_object(client, prefix):
    first = (await client.put(prefix, b"1")).header.revision
    second = (await client.put(prefix, b"2")).header.revision
    guard = [when(prefix, mod_revision=first)]
    stale = await client.txn(guard, [put_op(prefix, b"3")], [get_op(prefix)])
    assert not stale.succeeded
    (found,) = stale.responses[0].response_range.kvs
    assert (found.value, found.mod_revision) == (b"2", second)
    guard = [when(prefix, mod_revision=second)]
    updated = await client.txn(guard, [put_op(prefix, b"3")], [get_op(prefix)])
    assert updated.responses[0].response_put.header.revision == updated.header.revision


async def test_a_delete_has_a_header_inside_and_is_told_with_the_object(client, prefix):
    """T8, T33: `invalid DeleteRange response` up to 1.31, `PrevKv=nil` in a watch."""
    created = (await client.put(prefix, b"x")).header.revision
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix), prev_kv=True, progress_notify=True)
        guard = [when(prefix, mod_revision=created)]
        deleted = await client.txn(guard, [delete_op(prefix)], [get_op(prefix)])
        response = await stream.next()
        while not response.events:
            response = await stream.next()
    assert deleted.succeeded
    inner = deleted.responses[0].response_delete_range
    assert (inner.deleted, inner.header.revision) == (1, deleted.header.revision)
    (event,) = response.events
    assert (event.type, event.prev_kv.value) == (kv_pb2.Event.DELETE, b"x")
    assert event.kv.mod_revision == deleted.header.revision


@pytest.mark.parametrize("key", [b"registry/pods/", b"registry/pods", b"registry/health"])
async def test_a_key_that_is_not_there_tells_the_current_revision(client, prefix, key):
    """T2: a list's resource version, and the probes."""
    written = (await client.put(prefix)).header.revision
    answer = await client.get(prefix + key, limit=1)
    assert (answer.header.revision, answer.count, answer.more) == (written, 0, False)


async def test_pages_pinned_to_the_first_header_are_the_list_of_that_moment(client, prefix):
    """T9, T10: up to 1.31 `more` leads to the next page, from 1.32 on `len(kvs) < count`."""
    for number in range(25):
        await client.put(prefix + b"%02d" % number, b"v")
    start, revision, left, names = prefix, 0, 25, []
    while True:
        page = await client.get(start, prefix_end(prefix), limit=10, revision=revision)
        revision = revision or page.header.revision
        assert page.count == left
        assert page.more == (len(page.kvs) < page.count)
        names += [kv.key for kv in page.kvs]
        left -= len(page.kvs)
        await client.delete(names[-1])
        await client.put(prefix + b"99-%d" % left)
        if not page.more:
            break
        start = names[-1] + b"\0"
    assert names == [prefix + b"%02d" % number for number in range(25)]


async def test_a_list_at_an_exact_revision_is_the_same_later(client, prefix):
    """1.34 compares its cache with such lists every five minutes."""
    for name in (b"a", b"b", b"c"):
        await client.put(prefix + name, b"1")
    then = await client.list(prefix)
    await client.put(prefix + b"a", b"2")
    await client.delete(prefix + b"b")
    later = await client.list(prefix, revision=then.header.revision, limit=10_000)
    assert (later.kvs, later.count) == (then.kvs, then.count)


async def test_sizes_are_estimated_from_keys_alone(client, prefix):
    """T14: count_only up to 1.33, keys_only from 1.34 on."""
    for name in (b"a", b"b"):
        await client.put(prefix + name, bytes(1000))
    counted = await client.list(prefix, count_only=True)
    listed = await client.list(prefix, keys_only=True)
    assert (counted.count, len(counted.kvs)) == (listed.count, 0) == (2, 0)
    assert all(kv.key and not kv.value and kv.mod_revision for kv in listed.kvs)


async def test_a_consistent_read_waits_for_no_more_than_a_progress_answer(client, server, prefix):
    """T22, T23: on a stream with a watch of another resource, asked every 100 ms."""
    async with Client(server.target, metadata=HAS_LEADER) as other, other.watch() as stream:
        await stream.create(prefix + b"pods/", prefix + b"pods0", prev_kv=True)
        revision = (await client.put(prefix + b"secrets/a")).header.revision
        assert (await stream.progress()).header.revision >= revision


async def test_compactors_of_several_servers_compact_once(client, prefix):
    """T44, T53: by the version of a key, each round up to where the last one was."""
    key = prefix + b"compact_rev_key"

    async def compact_round(version: int, revision: int) -> tuple[int, int]:
        value = b"%d" % revision
        answer = await client.txn(
            [when(key, version=version)], [put_op(key, value)], [get_op(key)]
        )
        if answer.succeeded:
            return version + 1, answer.header.revision
        (found,) = answer.responses[0].response_range.kvs
        return found.version, int(found.value)

    noted = (await client.put(prefix)).header.revision
    rounds = await asyncio.gather(*(compact_round(0, noted) for _ in range(3)))
    assert [version for version, _ in rounds] == [1, 1, 1]
    assert sorted(value for _, value in rounds)[:2] == [noted, noted]
    async with client.watch() as stream:
        await stream.create(key, start_revision=await client.revision())
        await client.compact(noted)
        with refused(COMPACTED):
            await client.compact(noted)
        await compact_round(1, noted + 1)
        kept = [event.kv.value for event in await stream.events(2)]
    assert kept == [b"%d" % noted, b"%d" % (noted + 1)]


async def test_an_address_moves_to_the_new_lease_with_each_renewal(client, prefix):
    """T36: masterleases are put again every ten seconds, each time with a lease of its own."""
    old, new = [(await client.grant(15)).ID for _ in range(2)]
    first = await client.txn([when(prefix, mod_revision=0)], [put_op(prefix, b"ip", lease=old)])
    guard = [when(prefix, mod_revision=first.header.revision)]
    await client.txn(guard, [put_op(prefix, b"ip", lease=new)], [get_op(prefix)])
    await client.revoke(old)
    (found,) = (await client.get(prefix)).kvs
    assert (found.lease, found.value) == (new, b"ip")


async def test_events_of_an_hour_share_a_lease_and_go_together(client, prefix):
    """T4: one lease for up to a thousand objects."""
    lease = (await client.grant(3660)).ID
    for number in range(20):
        key = prefix + b"%02d" % number
        created = [put_op(key, b"event", lease=lease)]
        assert (await client.txn([when(key, mod_revision=0)], created)).succeeded
    async with client.watch() as stream:
        await stream.create(prefix, prefix_end(prefix), prev_kv=True)
        await client.revoke(lease)
        response = await stream.next()
    assert [event.prev_kv.value for event in response.events] == [b"event"] * 20
