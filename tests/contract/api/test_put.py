"""KV.Put (contract 2.1, 2.4; traps T5, T7, T13, T50, T52)."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.support.client import (
    KEY_NOT_FOUND,
    LEASE_PROVIDED,
    NO_KEY,
    NO_LEASE,
    VALUE_PROVIDED,
    refused,
)


async def test_each_put_takes_the_next_revision(client, prefix):
    first = await client.put(prefix, b"same")
    second = await client.put(prefix, b"same")
    assert second.header.revision == first.header.revision + 1


async def test_a_put_of_the_same_value_is_a_new_version(client, prefix):
    """T5."""
    await client.put(prefix, b"same")
    put = await client.put(prefix, b"same")
    (found,) = (await client.get(prefix)).kvs
    assert (found.version, found.mod_revision) == (2, put.header.revision)


async def test_a_put_after_a_delete_starts_a_new_generation(client, prefix):
    """T7."""
    await client.put(prefix)
    await client.put(prefix)
    await client.delete(prefix)
    put = await client.put(prefix)
    (found,) = (await client.get(prefix)).kvs
    assert (found.version, found.create_revision) == (1, put.header.revision)


async def test_prev_kv_is_what_was_there(client, prefix):
    await client.put(prefix, b"old")
    (before,) = (await client.get(prefix)).kvs
    assert (await client.put(prefix, b"new", prev_kv=True)).prev_kv == before


async def test_prev_kv_of_a_new_key_is_absent(client, prefix):
    answer = await client.put(prefix, prev_kv=True)
    assert not answer.HasField("prev_kv")


async def test_ignore_value_keeps_the_value_and_changes_the_lease(client, prefix):
    lease = (await client.grant(1000)).ID
    await client.put(prefix, b"kept")
    await client.put(prefix, ignore_value=True, lease=lease)
    (found,) = (await client.get(prefix)).kvs
    assert (found.value, found.lease, found.version) == (b"kept", lease, 2)


async def test_ignore_lease_keeps_the_lease_and_changes_the_value(client, prefix):
    lease = (await client.grant(1000)).ID
    await client.put(prefix, b"old", lease=lease)
    await client.put(prefix, b"new", ignore_lease=True)
    (found,) = (await client.get(prefix)).kvs
    assert (found.value, found.lease) == (b"new", lease)


async def test_a_put_without_lease_detaches_the_key(client, prefix):
    lease = (await client.grant(1000)).ID
    await client.put(prefix, lease=lease)
    await client.put(prefix)
    assert (await client.get(prefix)).kvs[0].lease == 0
    assert not (await client.time_to_live(lease, keys=True)).keys


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"value": b"x", "ignore_value": True}, VALUE_PROVIDED),
        ({"lease": 1, "ignore_lease": True}, LEASE_PROVIDED),
        ({"ignore_value": True}, KEY_NOT_FOUND),
        ({"ignore_lease": True}, KEY_NOT_FOUND),
        ({"lease": 0x7ABC0DE}, NO_LEASE),
    ],
)
async def test_a_bad_put_is_refused_and_leaves_no_trace(client, prefix, fields, refusal):
    before = await client.revision()
    with refused(refusal):
        await client.put(prefix, **fields)
    assert await client.revision() == before
    assert not (await client.get(prefix)).kvs


async def test_an_empty_key_is_refused(client):
    with refused(NO_KEY):
        await client.put(b"", b"x")


async def test_a_value_may_be_any_bytes_up_to_the_limit(client, prefix):
    """T13, T50."""
    value = os.urandom(1_500_000)
    await client.put(prefix, value)
    assert (await client.get(prefix)).kvs[0].value == value


async def test_a_key_may_be_long(client, prefix):
    """2.2: a key has no limit of its own."""
    key = prefix + bytes(range(256)) * 400
    await client.put(key, b"x")
    assert (await client.get(key)).kvs[0].key == key


async def test_parallel_puts_never_share_a_revision(client, prefix):
    """T3, T52."""
    answers = await asyncio.gather(*(client.put(prefix, b"%d" % n) for n in range(200)))
    revisions = [answer.header.revision for answer in answers]
    assert len(set(revisions)) == 200
    (found,) = (await client.get(prefix)).kvs
    assert found.version == 200
    assert found.value == b"%d" % revisions.index(max(revisions))
