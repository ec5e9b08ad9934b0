"""KV.Compact (contract 2.6; traps T1, T12, T26, T53)."""

from __future__ import annotations

import pytest

from tests.support.client import COMPACTED, FUTURE, Client, prefix_end, refused


async def test_compacting_takes_no_revision(client, prefix):
    revision = (await client.put(prefix)).header.revision
    assert (await client.compact(revision)).header.revision == revision
    assert await client.revision() == revision


async def test_reads_below_are_refused_at_once(client, prefix):
    """T53."""
    old = (await client.put(prefix)).header.revision
    await client.compact((await client.put(prefix)).header.revision)
    with refused(COMPACTED):
        await client.list(prefix, revision=old)


async def test_the_current_revision_may_be_compacted(client, prefix):
    """T53: and the state stays readable there."""
    revision = (await client.put(prefix, b"x")).header.revision
    await client.compact(revision, physical=True)
    assert (await client.get(prefix, revision=revision)).kvs[0].value == b"x"
    assert (await client.get(prefix)).kvs[0].value == b"x"


async def test_a_revision_is_compacted_once(client, prefix):
    revision = (await client.put(prefix)).header.revision
    await client.compact(revision)
    with refused(COMPACTED):
        await client.compact(revision)
    with refused(COMPACTED):
        await client.compact(revision - 1)


@pytest.mark.parametrize("revision", [-5, 0])
async def test_a_revision_below_one_counts_as_compacted(client, prefix, revision):
    await client.compact((await client.put(prefix)).header.revision)
    with refused(COMPACTED):
        await client.compact(revision)


async def test_a_future_revision_is_refused(client):
    with refused(FUTURE):
        await client.compact(await client.revision() + 100_000)


async def test_revision_zero_may_be_compacted_once_on_an_empty_store(fresh):
    async with Client(fresh.target) as client:
        await client.compact(0)
        with refused(COMPACTED):
            await client.compact(0)


@pytest.mark.parametrize("physical", [False, True])
async def test_history_above_stays(client, prefix, physical):
    revisions = [(await client.put(prefix, b"%d" % n)).header.revision for n in range(6)]
    await client.compact(revisions[2], physical=physical)
    for number in range(2, 6):
        found = await client.get(prefix, revision=revisions[number])
        assert found.kvs[0].value == b"%d" % number


@pytest.mark.parametrize("physical", [False, True])
async def test_a_key_last_changed_long_before_survives(client, prefix, physical):
    await client.put(prefix + b"old", b"x")
    for _ in range(5):
        last = await client.put(prefix + b"new")
    await client.compact(last.header.revision, physical=physical)
    found = await client.list(prefix)
    assert [kv.key for kv in found.kvs] == [prefix + b"new", prefix + b"old"]
    assert found.kvs[1].value == b"x"


async def test_the_revision_never_shrinks_when_the_newest_change_was_a_delete(fresh):
    """T1: compaction takes the tombstone, a restart must not take the revision."""
    async with Client(fresh.target) as client:
        await client.put(b"a")
        await client.put(b"b")
        last = (await client.delete(b"a", b"\0")).header.revision
        await client.compact(last, physical=True)
        assert await client.revision() == last
        if fresh.name.startswith("memory"):
            return
    fresh.stop()
    fresh.start()
    async with Client(fresh.target) as client:
        assert await client.revision() == last
        with refused(COMPACTED):
            await client.get(b"a", revision=last - 1)
        assert (await client.put(b"a")).header.revision == last + 1


async def test_a_generation_begun_after_the_compaction_is_whole(client, prefix):
    await client.put(prefix)
    deleted = (await client.delete(prefix)).header.revision
    created = (await client.put(prefix, b"again")).header.revision
    await client.compact(deleted, physical=True)
    assert (await client.get(prefix, revision=deleted)).count == 0
    (found,) = (await client.get(prefix, revision=created)).kvs
    assert (found.version, found.create_revision) == (1, created)


async def test_compacting_a_large_range_delete_keeps_the_rest(client, prefix):
    for number in range(50):
        await client.put(prefix + b"%02d" % number)
    await client.delete(prefix, prefix + b"25")
    await client.compact(await client.revision(), physical=True)
    assert (await client.get(prefix, prefix_end(prefix), count_only=True)).count == 25
