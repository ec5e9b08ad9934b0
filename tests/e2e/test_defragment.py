"""Defragmenting a SQLite file gives its space back while everybody goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, put_op
from tests.support.running import Server
from tests.support.shim import shim

KEYS = 500
A_TXN = 10
VALUE = bytes(100_000)
SLACK_BYTES = 1 << 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = shim(tmp_path, "sqlite")
    made.start()
    yield made
    made.close()


async def status(client: Client) -> pb.StatusResponse:
    return await client.call("Maintenance/Status", b"", pb.StatusResponse)


async def one_of_each(client: Client) -> None:
    """Read, write and ask for the status."""
    assert (await client.get(b"00001")).count == 1
    await client.put(b"other", VALUE)
    assert (await status(client)).dbSize


async def test_space_comes_back_and_nobody_is_refused(server, tmp_path, record_property):
    async with Client(server.target) as client:
        for start in range(0, KEYS, A_TXN):
            names = [b"%05d" % number for number in range(start, start + A_TXN)]
            await client.txn(success=[put_op(name, VALUE) for name in names])
        full = (await status(client)).dbSize
        assert full > KEYS * len(VALUE)
        await client.delete(b"%05d" % (KEYS // 5), b"1")
        # Pruning leaves some free pages to be written again.
        await client.compact(await client.revision(), physical=True)
        defragment = asyncio.create_task(
            client.call("Maintenance/Defragment", b"", pb.DefragmentResponse, timeout=120)
        )
        longest = 0.0
        while not defragment.done():
            began = time.perf_counter()
            await one_of_each(client)
            longest = max(longest, time.perf_counter() - began)
        await defragment
        record_property("longest read, write and status in ms", longest * 1000)
        after = await status(client)
        assert after.dbSize < full / 3
        assert after.dbSize - after.dbSizeInUse < SLACK_BYTES
        assert (tmp_path / "shim.db").stat().st_size < full / 3
        assert await client.count(b"0", b"1") == KEYS // 5
