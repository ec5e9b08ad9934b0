"""Automatic compaction of real servers, by a clock that the test turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import grpc.aio

from datastore.shim.backends.api import Batch
from datastore.shim.backends.memory import Fault, Faults, Log, MemoryBackend
from datastore.shim.compactor import Clock, Compactor
from datastore.shim.members import Members
from datastore.shim.options import ServeOptions
from datastore.shim.retention import Retention
from datastore.shim.server import Shim
from tests.support.client import COMPACTED, Client, refused

TEN = Retention.by_number(10)


class Hands:
    """A clock that stands until it is turned, for one sleeper."""

    def __init__(self) -> None:
        self.clock = Clock(lambda: self._now, self._sleep)
        self._now = 0.0
        self._asleep = asyncio.Event()
        self._alarm = asyncio.Event()
        self._due = 0.0

    async def _sleep(self, seconds: float) -> None:
        self._due = self._now + seconds
        self._alarm.clear()
        self._asleep.set()
        await self._alarm.wait()

    async def turn(self, seconds: float) -> None:
        """Let time pass, and return when the sleeper sleeps again."""
        end = self._now + seconds
        await self._asleep.wait()
        while self._due <= end:
            self._now = self._due
            self._asleep.clear()
            self._alarm.set()
            await self._asleep.wait()
        self._now = end


class Away(Faults):
    """A database that takes no commit while `away`."""

    away = False

    def append(self, batch: Batch) -> Fault | None:
        return Fault.UNAVAILABLE if self.away else None


class Running(NamedTuple):
    """A server, a client of it, and its compactor's clock and view of the members."""

    shim: Shim
    client: Client
    hands: Hands
    members: Members

    @property
    def compacted(self) -> int:
        return self.shim.replica.store.compacted


@asynccontextmanager
async def compacting(
    directory: Path,
    retention: Retention,
    log: Log | None = None,
    name: str = "a",
    faults: Faults | None = None,
) -> AsyncIterator[Running]:
    socket, hands = directory / f"{name}.sock", Hands()
    options = ServeOptions("", (f"unix://{socket}",), name=name)
    backend = MemoryBackend(log, faults, shared=log is not None, inline=log is None)
    async with Shim(options, backend) as shim, Client(f"unix:{socket}") as client:
        # Not the server's own, which looks around by itself.
        members = Members(shim.replica, shim.members.me, lambda: None)
        compactor = Compactor(shim.replica, shim.writer, members, retention, hands.clock)
        task = asyncio.create_task(compactor.run())
        yield Running(shim, client, hands, members)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def put(client: Client, times: int) -> None:
    for _ in range(times):
        await client.put(b"k", b"v")


async def until_put(client: Client) -> None:
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await client.put(b"k", b"v")
            return


async def test_the_newest_revisions_are_kept(tmp_path: Path) -> None:
    async with compacting(tmp_path, TEN) as server:
        await put(server.client, 30)
        assert server.shim.replica.store.revision == 31
        await server.hands.turn(299)
        assert (await server.client.get(b"k", revision=2)).kvs
        await server.hands.turn(1)
        with refused(COMPACTED):
            await server.client.get(b"k", revision=20)
        assert (await server.client.get(b"k", revision=21)).kvs[0].version == 20


async def test_what_is_old_goes_and_what_is_young_stays(tmp_path: Path) -> None:
    async with compacting(tmp_path, Retention.by_age(3600)) as server:
        await put(server.client, 10)
        await server.hands.turn(1800)
        await put(server.client, 10)
        await server.hands.turn(1799)
        assert (await server.client.get(b"k", revision=2)).kvs, "nothing is older than an hour"
        await server.hands.turn(3601)
        with refused(COMPACTED):
            await server.client.get(b"k", revision=11)
        assert (await server.client.get(b"k")).kvs[0].version == 20


async def test_a_client_that_was_faster_is_no_failure(tmp_path: Path, caplog) -> None:
    async with compacting(tmp_path, TEN) as server:
        await put(server.client, 30)
        await server.client.compact(25)
        await server.hands.turn(300)
        assert server.compacted == 25
        await put(server.client, 10)
        await server.hands.turn(300)
        assert server.compacted == 31
    assert "failed" not in caplog.text


async def test_a_compaction_that_failed_is_tried_again_a_step_later(
    tmp_path: Path, caplog
) -> None:
    faults = Away()
    async with compacting(tmp_path, TEN, Log(), faults=faults) as server:
        await put(server.client, 30)
        faults.away = True
        await server.hands.turn(300)
        assert "automatic compaction failed" in caplog.text
        faults.away = False
        async with asyncio.timeout(60):
            await until_put(server.client)
        await server.hands.turn(300)
        assert server.compacted == server.shim.replica.store.revision - 10


async def test_of_several_servers_the_first_compacts_and_the_next_takes_over(
    tmp_path: Path,
) -> None:
    log = Log()
    async with compacting(tmp_path, TEN, log, "a") as a, compacting(tmp_path, TEN, log, "b") as b:
        for server in (a, b, a):
            await server.members.beat()
        assert a.members.first == b.members.first
        first, second = (a, b) if a.members.first == a.members.me.id else (b, a)
        await put(a.client, 30)
        await second.shim.replica.catch_up()
        await second.hands.turn(300)
        assert (await second.client.get(b"k", revision=2)).kvs, "it is not the first"
        await first.hands.turn(300)
        await second.shim.replica.catch_up()
        assert second.compacted == 21
        await put(second.client, 10)
        second.members.live = (second.members.me,)
        await second.hands.turn(300)
        assert second.compacted == 31


async def test_two_that_both_compact_do_no_harm(tmp_path: Path, caplog) -> None:
    log = Log()
    async with compacting(tmp_path, TEN, log, "a") as a, compacting(tmp_path, TEN, log, "b") as b:
        await put(a.client, 30)
        await b.shim.replica.catch_up()
        await asyncio.gather(a.hands.turn(300), b.hands.turn(300))
        await b.shim.replica.catch_up()
        assert a.compacted == b.compacted == 21
    assert "failed" not in caplog.text
