"""KV.DeleteRange (contract 2.4; traps T4, T5)."""

from __future__ import annotations

import pytest

from tests.support.client import NO_KEY, prefix_end, refused


async def fill(client, prefix, names=(b"a", b"b", b"c")):
    for name in names:
        await client.put(prefix + name, name)


async def test_deleting_one_key_leaves_its_neighbours(client, prefix):
    await fill(client, prefix, (b"a", b"aa", b"b"))
    assert (await client.delete(prefix + b"a")).deleted == 1
    assert [kv.key for kv in (await client.list(prefix)).kvs] == [prefix + b"aa", prefix + b"b"]


async def test_a_range_goes_in_one_revision(client, prefix):
    """T4."""
    await fill(client, prefix)
    before = await client.revision()
    answer = await client.delete(prefix, prefix_end(prefix))
    assert answer.deleted == 3
    assert answer.header.revision == before + 1
    assert (await client.list(prefix)).count == 0


async def test_deleting_nothing_takes_no_revision(client, prefix):
    """T5."""
    before = await client.revision()
    answer = await client.delete(prefix, prefix_end(prefix), prev_kv=True)
    assert (answer.deleted, len(answer.prev_kvs)) == (0, 0)
    assert answer.header.revision == before
    assert await client.revision() == before


async def test_prev_kvs_come_in_key_order(client, prefix):
    await fill(client, prefix, (b"c", b"a", b"b"))
    before = await client.list(prefix)
    answer = await client.delete(prefix, prefix_end(prefix), prev_kv=True)
    assert answer.prev_kvs == before.kvs


async def test_prev_kvs_are_absent_unless_asked_for(client, prefix):
    await fill(client, prefix)
    assert not (await client.delete(prefix, prefix_end(prefix))).prev_kvs


async def test_a_deleted_key_is_still_there_at_an_older_revision(client, prefix):
    await fill(client, prefix, (b"a",))
    then = await client.revision()
    await client.delete(prefix + b"a")
    assert (await client.get(prefix + b"a", revision=then)).kvs[0].value == b"a"


async def test_a_delete_detaches_the_lease(client, prefix):
    lease = (await client.grant(1000)).ID
    await client.put(prefix, lease=lease)
    await client.delete(prefix)
    assert not (await client.time_to_live(lease, keys=True)).keys


@pytest.mark.parametrize("end", [b"a", b"b"])
async def test_a_range_that_ends_before_it_starts_deletes_nothing(client, prefix, end):
    await fill(client, prefix)
    assert (await client.delete(prefix + b"b", prefix + end)).deleted == 0


async def test_from_key_on_deletes_the_tail(client, high):
    await fill(client, high)
    assert (await client.delete(high + b"b", b"\0")).deleted == 2
    assert [kv.key for kv in (await client.get(high, b"\0")).kvs] == [high + b"a"]


async def test_an_empty_key_is_refused(client):
    with refused(NO_KEY):
        await client.delete(b"", b"\0")
