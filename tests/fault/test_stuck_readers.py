"""Watches that nobody reads: the server stays small, others go on, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import SECONDS, Client
from tests.support.memory import forget_peak, peak_rss_bytes, rss_bytes
from tests.support.running import Server
from tests.support.shim import shim

READERS = 30
CHANGES = 200
VALUE_BYTES = 1 << 20
MOST_BYTES = 512 << 20
"""If all that is not read were kept it would be twelve gigabytes."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = shim(tmp_path, "sqlite", [f"--value-cache-bytes={8 << 20}"])
    started.start()
    yield started
    started.close()


async def begin(client: Client) -> Any:
    """Watch the key, and read nothing but that the watch was created."""
    call: Any = client.channel.stream_stream("/etcdserverpb.Watch/Watch")()
    create = pb.WatchCreateRequest(key=b"key", prev_kv=True)
    await call.write(pb.WatchRequest(create_request=create).SerializeToString())
    assert pb.WatchResponse.FromString(await call.read()).created
    return call


async def read_on(call: Any) -> list[int]:
    """Read what has waited, and return the versions."""
    seen: list[int] = []
    while len(seen) < CHANGES:
        body = await asyncio.wait_for(call.read(), SECONDS)
        seen += [event.kv.version for event in pb.WatchResponse.FromString(body).events]
    return seen


async def test_what_is_not_read_is_not_kept_and_not_lost(server: Server) -> None:
    """T31."""
    assert server.process is not None
    pid = server.process.pid
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(server.target)) for _ in range(READERS)]
        calls = [await begin(client) for client in clients]
        good = await stack.enter_async_context(Client(server.target))
        stream = await stack.enter_async_context(good.watch())
        await stream.create(b"key")
        before = rss_bytes(pid)
        forget_peak(pid)
        for version in range(1, CHANGES + 1):
            await good.put(b"key", bytes(VALUE_BYTES))
            (event,) = (await stream.next()).events
            assert event.kv.version == version
        assert peak_rss_bytes(pid) - before < MOST_BYTES
        for call in calls[:3]:
            assert await read_on(call) == list(range(1, CHANGES + 1))
        assert peak_rss_bytes(pid) - before < MOST_BYTES
        for call in calls:
            call.cancel()
        await good.put(b"key", b"after")
