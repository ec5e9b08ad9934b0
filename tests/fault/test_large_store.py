"""A store of several hundred thousand keys: listed, killed, compacted, emptied."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, delete_op, put_op
from tests.support.running import Server

pytestmark = [pytest.mark.soak]

KEYS = 200_000
A_TXN = 128
PAGE = 10_000
FIRST, END = b"large/", b"large0"
PRUNE_SECONDS = 600.0


def key(number: int) -> bytes:
    return FIRST + b"%07d" % number


def value(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest() * 4


async def pages(client: Client) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """Read everything as kube-apiserver lists: pages at one revision."""
    start, revision, more = FIRST, 0, True
    while more:
        page = await client.get(start, END, limit=PAGE, revision=revision)
        yield [(kv.key, kv.value) for kv in page.kvs]
        revision, more = revision or page.header.revision, page.more
        start = page.kvs[-1].key + b"\0" if page.kvs else END


async def write(client: Client, numbers: range) -> None:
    for first in range(numbers.start, numbers.stop, A_TXN):
        some = range(first, min(first + A_TXN, numbers.stop))
        await client.txn(success=[put_op(key(number), value(number)) for number in some])


async def check_whole(client: Client) -> None:
    assert await client.count(FIRST, END) == KEYS
    number = 0
    async for page in pages(client):
        for found in page:
            assert found == (key(number), value(number))
            number += 1
    assert number == KEYS


def stored_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("shim.db*"))


async def test_a_large_store_is_whole_after_a_crash_and_small_after_its_end(
    server: Server, tmp_path: Path
) -> None:
    async with Client(server.target) as client:
        share = KEYS // 8
        async with asyncio.TaskGroup() as group:
            for first in range(0, KEYS, share):
                group.create_task(write(client, range(first, min(first + share, KEYS))))
        await check_whole(client)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    async with Client(server.target) as client:
        await check_whole(client)
        full = stored_bytes(tmp_path)
        for first in range(0, KEYS, PAGE):
            await client.txn(success=[delete_op(key(first), key(first + PAGE))])
        assert await client.count(FIRST, END) == 0
        compaction = pb.CompactionRequest(revision=await client.revision(), physical=True)
        await client.call("KV/Compact", compaction, pb.CompactionResponse, timeout=PRUNE_SECONDS)
    if full:
        assert stored_bytes(tmp_path) < full / 4
