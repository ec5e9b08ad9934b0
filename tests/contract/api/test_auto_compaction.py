"""Automatic compaction (contract 2.6; etcd's --auto-compaction-mode and -retention)."""

from __future__ import annotations

from collections.abc import Iterator

import grpc.aio
import pytest

from tests.support.client import COMPACTED, Client, refused, until_none
from tests.support.running import Server


@pytest.fixture
def compacting(kind: str, launch) -> Iterator[Server]:
    server = launch(kind, "--auto-compaction-retention=1s")
    yield server
    server.close()


async def test_history_goes_by_itself_and_the_newest_version_stays(compacting):
    async with Client(compacting.target) as client:
        first = (await client.put(b"k", b"1")).header.revision
        await client.put(b"k", b"2")

        async def readable() -> bool:
            try:
                return bool((await client.get(b"k", revision=first)).kvs)
            except grpc.aio.AioRpcError:
                return False

        await until_none(readable)
        with refused(COMPACTED):
            await client.get(b"k", revision=first)
        assert (await client.get(b"k")).kvs[0].value == b"2"
