"""KV.RangeStream of etcd 3.7 (contract 2.3; trap T55)."""

from __future__ import annotations

from typing import Any

import pytest

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import (
    COMPACTED,
    FUTURE,
    NO_KEY,
    Client,
    Code,
    Refusal,
    prefix_end,
    refused,
)

SORTED = Refusal(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders")
FILTERED = Refusal(Code.UNIMPLEMENTED, "RangeStream does not support revision filters")


async def chunks(client: Client, prefix: bytes, **fields: Any) -> list[pb.RangeResponse]:
    return [chunk async for chunk in client.stream(prefix, prefix_end(prefix), **fields)]


def joined(responses: list[pb.RangeResponse]) -> list[kv_pb2.KeyValue]:
    return [found for chunk in responses for found in chunk.kvs]


async def fill(client: Client, prefix: bytes, count: int, size: int = 10) -> None:
    for number in range(count):
        await client.put(prefix + b"%04d" % number, bytes(size))


@pytest.mark.parametrize(
    "fields",
    [{}, {"limit": 17}, {"keys_only": True}, {"serializable": True}, {"sort_order": "ASCEND"}],
    ids=["all", "limit", "keys_only", "serializable", "ascending"],
)
async def test_chunks_joined_are_the_range(client, prefix, fields):
    await fill(client, prefix, 40)
    whole = await client.list(prefix, **fields)
    parts = await chunks(client, prefix, **fields)
    assert joined(parts) == list(whole.kvs)
    assert (parts[-1].count, parts[-1].more) == (whole.count, whole.more)


async def test_only_the_last_chunk_has_header_count_and_more(client, prefix):
    await fill(client, prefix, 40)
    *early, last = await chunks(client, prefix, limit=30)
    assert early
    for chunk in early:
        assert not chunk.HasField("header")
        assert (chunk.count, chunk.more) == (0, False)
    assert last.header.revision == await client.revision()
    assert (last.count, last.more) == (40, True)


async def test_small_keys_are_cut_finely_too(client, prefix):
    """T55: 25 small keys arrive in at least two messages."""
    await fill(client, prefix, 25)
    assert len(await chunks(client, prefix)) >= 2


@pytest.mark.parametrize("fields", [{}, {"count_only": True}], ids=["keys", "count_only"])
async def test_an_empty_range_is_one_message_with_a_header(client, prefix, fields):
    (only,) = await chunks(client, prefix, **fields)
    assert (only.count, only.more, len(only.kvs)) == (0, False, 0)
    assert only.header.revision == await client.revision()


async def test_count_only_is_one_message(client, prefix):
    await fill(client, prefix, 25)
    (only,) = await chunks(client, prefix, count_only=True)
    assert (only.count, only.more, len(only.kvs)) == (25, False, 0)


async def test_the_header_tells_the_current_revision_for_an_old_one(client, prefix):
    await fill(client, prefix, 3)
    then = await client.revision()
    await client.put(prefix + b"later")
    parts = await chunks(client, prefix, revision=then)
    assert (parts[-1].count, len(joined(parts))) == (3, 3)
    assert parts[-1].header.revision == then + 1


async def test_a_stream_shows_the_revision_at_which_it_started(client, prefix):
    await fill(client, prefix, 40, 100_000)
    then = await client.revision()
    stream = client.stream(prefix, prefix_end(prefix))
    found = [await anext(stream)]
    await client.put(prefix + b"0039", b"changed")
    await client.put(prefix + b"later")
    found += [chunk async for chunk in stream]
    assert len(joined(found)) == 40
    assert max(kv.mod_revision for kv in joined(found)) == then
    assert (found[-1].count, found[-1].header.revision) == (40, then)


async def test_a_compaction_midway_ends_the_stream(client, prefix):
    """T55."""
    await fill(client, prefix, 64, 1_000_000)
    stream = client.stream(prefix, prefix_end(prefix))
    await anext(stream)
    newest = (await client.put(prefix + b"0000")).header.revision
    await client.compact(newest)
    with refused(COMPACTED):
        async for _ in stream:
            pass
    await client.delete(prefix, prefix_end(prefix))
    await client.compact(await client.revision(), physical=True)


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"sort_order": "DESCEND"}, SORTED),
        ({"sort_order": "ASCEND", "sort_target": "MOD"}, SORTED),
        ({"min_mod_revision": 1}, FILTERED),
        ({"max_mod_revision": 1}, FILTERED),
        ({"min_create_revision": 1}, FILTERED),
        ({"max_create_revision": 1}, FILTERED),
    ],
)
async def test_sorting_and_filters_are_not_offered(client, prefix, fields, refusal):
    with refused(refusal):
        await chunks(client, prefix, **fields)


async def test_a_future_revision_is_refused(client, prefix):
    with refused(FUTURE):
        await chunks(client, prefix, revision=await client.revision() + 100_000)


async def test_a_compacted_revision_is_refused(client, prefix):
    old = (await client.put(prefix)).header.revision
    await client.compact((await client.put(prefix)).header.revision)
    with refused(COMPACTED):
        await chunks(client, prefix, revision=old)


async def test_an_empty_key_is_refused(client):
    with refused(NO_KEY):
        async for _ in client.stream(b"", b"\0"):
            pass
