"""Locks and elections of several servers on one log, and of a server that stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from datastore.shim.backends.memory import Log, MemoryBackend
from datastore.shim.options import ServeOptions
from datastore.shim.server import Shim
from tests.support.client import Client, Code, Refusal, refused
from tests.support.queues import campaign, lock, observing, queued, resign, unlock

STOPPED = Refusal(Code.UNAVAILABLE, "etcdserver: server stopped")


@asynccontextmanager
async def server(directory: Path, name: str, log: Log) -> AsyncIterator[Client]:
    url = f"unix://{directory / name}"
    options = ServeOptions(datastore="", listen_client_urls=(url,), name=name)
    backend = MemoryBackend(log, shared=True, inline=False)
    async with Client(f"unix:{directory / name}") as client, Shim(options, backend):
        yield client


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Client, Client]]:
    log = Log()
    async with server(tmp_path, "a", log) as one, server(tmp_path, "b", log) as two:
        yield one, two


async def test_a_lock_passes_from_one_server_s_client_to_another_s(
    pair: tuple[Client, Client],
) -> None:
    one, two = pair
    held = await lock(one, b"l")
    waiters = [asyncio.create_task(lock(client, b"l")) for client in (two, one, two)]
    await queued(one, b"l/", 4)
    for _ in waiters:
        await unlock(two, held.key)
        done, _pending = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1, "one holds it at a time"
        held = done.pop().result()
        waiters = [waiter for waiter in waiters if not waiter.done()]
    assert not waiters


async def test_an_observer_sees_leaders_who_stood_at_another_server(
    pair: tuple[Client, Client],
) -> None:
    one, two = pair
    async with observing(two, b"e") as observed:
        first = await campaign(one, b"e", 0, b"1")
        assert (await observed.next()).kv.value == b"1"
        await resign(two, first.leader)
        await campaign(two, b"e", 0, b"2")
        assert (await observed.next()).kv.value == b"2"


async def test_a_server_that_stops_tells_waiters_and_takes_them_out_of_the_queue(
    tmp_path: Path,
) -> None:
    log = Log()
    async with server(tmp_path, "a", log) as one, Client(f"unix:{tmp_path / 'b'}") as two:
        async with server(tmp_path, "b", log):
            await lock(one, b"l")
            lock_waits = asyncio.create_task(lock(two, b"l"))
            campaign_waits = asyncio.create_task(campaign(two, b"l", 0))
            await queued(one, b"l/", 3)
        for waiter in (lock_waits, campaign_waits):
            with refused(STOPPED):
                await waiter
        await queued(one, b"l/", 1)
