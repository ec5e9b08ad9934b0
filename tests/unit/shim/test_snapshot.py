"""A snapshot beside compactions, pruning, lost rows and clients that go away."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.backends.api import to_row_id
from datastore.shim.backends.memory import Fault, Faults, Log, MemoryBackend
from datastore.shim.options import ServeOptions
from datastore.shim.server import Shim
from tests.support.bolt import Database
from tests.support.client import Client, path


class Gate(Faults):
    """Pages of the log wait until they are let through."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()

    def read(self, operation: str) -> Fault | None:
        if operation == "history" and not self.open.is_set():
            self.waiting.set()
            self.open.wait(30)
        return None


@asynccontextmanager
async def serving(
    directory: Path, gate: Gate, log: Log | None = None
) -> AsyncIterator[tuple[Shim, Client]]:
    socket = directory / "grpc.sock"
    options = ServeOptions(datastore="", listen_client_urls=(f"unix://{socket}",))
    backend = MemoryBackend(log, gate, shared=log is not None, inline=log is None)
    async with Shim(options, backend) as shim, Client(f"unix:{socket}") as client:
        yield shim, client


def begin(client: Client) -> Any:
    method = client.channel.unary_stream(
        path("Maintenance/Snapshot"), response_deserializer=pb.SnapshotResponse.FromString
    )
    return method(b"", timeout=60)


async def take(client: Client) -> list[int]:
    """Take a snapshot and return the revisions of the changes in it."""
    messages = [message async for message in begin(client)]
    found = Database(b"".join(message.blob for message in messages[:-1]))
    return [struct.unpack_from(">Q", key)[0] for key, _ in found.bucket(b"key")]


async def halt(gate: Gate, client: Client) -> asyncio.Task[list[int]]:
    """Begin a snapshot that waits for its first rows."""
    gate.open.clear()
    task = asyncio.create_task(take(client))
    await asyncio.to_thread(gate.waiting.wait, 30)
    return task


async def test_a_compaction_meanwhile_takes_nothing_away(tmp_path: Path) -> None:
    gate = Gate()
    async with serving(tmp_path, gate) as (shim, client):
        for _ in range(5):  # 2 to 6
            await client.put(b"a")
        await client.delete(b"a")  # 7
        await client.put(b"b")  # 8
        await client.compact(4)
        taking = await halt(gate, client)
        await client.compact(8)
        await client.put(b"c")  # 9
        physical = asyncio.create_task(client.compact(9, physical=True))
        gate.open.set()
        assert await taking == [4, 5, 6, 7, 8]
        await physical
        assert shim.replica.store.garbage == 0
        assert await take(client) == [8, 9]
        assert shim.backend.history(0, 100, 100).rows[0].meta.id == to_row_id(8, 0)


async def test_when_another_server_was_quicker_to_prune_it_begins_again(tmp_path: Path) -> None:
    gate, log = Gate(), Log()
    async with serving(tmp_path, gate, log) as (_, client):
        for _ in range(4):  # 2 to 5
            await client.put(b"a")
        taking = await halt(gate, client)
        await client.compact(4)
        other = MemoryBackend(log, shared=True, inline=False)
        other.open()
        other.prune(4, [to_row_id(2, 0), to_row_id(3, 0)])
        gate.open.set()
        assert await taking == [4, 5]
        other.close()


async def test_other_servers_are_told_what_is_still_read(tmp_path: Path) -> None:
    gate, log = Gate(), Log()
    async with serving(tmp_path, gate, log) as (shim, client):
        for _ in range(4):
            await client.put(b"a")
        await client.compact(3)
        taking = await halt(gate, client)
        await client.put(b"a")
        assert [member.horizon for member in await shim.members.beat()] == [3]
        gate.open.set()
        await taking
        assert [member.horizon for member in await shim.members.beat()] == [6]


async def test_a_log_that_lost_a_row_makes_no_snapshot_and_is_not_served(tmp_path: Path) -> None:
    log = Log()
    async with serving(tmp_path, Gate(), log) as (shim, client):
        for _ in range(4):
            await client.put(b"a")
        await client.compact(3)
        lost = to_row_id(4, 0)
        log._ids.remove(lost)
        del log.rows[lost]
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await take(client)
        assert refusal.value.code() is grpc.StatusCode.DATA_LOSS
        assert refusal.value.details() == "etcdserver: corrupt cluster"
        assert await shim.failure() == "the log has 2 rows of 3 though nothing pruned the others"


async def test_servers_of_one_log_hash_alike(tmp_path: Path) -> None:
    log = Log()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with (
        serving(tmp_path / "one", Gate(), log) as (_, one),
        serving(tmp_path / "two", Gate(), log) as (_, two),
    ):
        for number in range(10):
            await one.put(b"%d" % (number % 3), b"x")
        await one.delete(b"1")
        await one.compact(6, physical=True)
        await two.grant(60, 7)
        await one.call("Auth/RoleAdd", pb.AuthRoleAddRequest(name="r"), pb.AuthRoleAddResponse)
        hashes = [
            (
                await client.call("Maintenance/Hash", b"", pb.HashResponse),
                await client.call("Maintenance/HashKV", b"", pb.HashKVResponse),
            )
            for client in (one, two)
        ]
        assert len({(whole.hash, keys.hash) for whole, keys in hashes}) == 1


class Silent(Gate):
    """Other servers have to look by themselves."""

    def hint(self) -> bool:
        return False


class Meanwhile(Gate):
    """Does something once while leases are read, in the thread that reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.todo: list[Callable[[], object]] = []

    def read(self, operation: str) -> Fault | None:
        if operation == "leases" and self.todo:
            self.todo.pop()()
        return super().read(operation)


async def test_leases_are_those_of_the_commit_that_is_copied(tmp_path: Path) -> None:
    loop, meanwhile, log = asyncio.get_running_loop(), Meanwhile(), Log()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with (
        serving(tmp_path / "one", meanwhile, log) as (_, one),
        serving(tmp_path / "two", Silent(), log) as (_, two),
    ):
        await two.grant(60, 7)
        await two.put(b"a", lease=7)
        await one.get(b"a")

        def revoke() -> None:
            asyncio.run_coroutine_threadsafe(two.revoke(7), loop).result(30)

        meanwhile.todo.append(revoke)
        await two.grant(60, 8)
        messages = [message async for message in begin(one)]
        assert not meanwhile.todo
        found = Database(b"".join(message.blob for message in messages[:-1]))
        assert [key[-1] for key, _ in found.bucket(b"lease")] == [8]
        assert [key[17:] for key, _ in found.bucket(b"key")] == [b"", b"t"]


async def test_nothing_is_left_of_a_snapshot_that_nobody_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    gate = Gate()
    async with serving(tmp_path, gate) as (shim, client):
        for number in range(20):  # more than there is room for on the way
            await client.put(b"%d" % number, bytes(1_000_000))
        gate.open.clear()
        call = begin(client)
        await asyncio.to_thread(gate.waiting.wait, 30)
        assert spools(tmp_path) == 1
        assert shim.replica.holds.oldest == -1
        call.cancel()
        gate.open.set()
        await until(lambda: spools(tmp_path) == 0)
        assert shim.replica.holds.oldest is None
        # Nor of one whose client stops reading.
        call = begin(client)
        await call.read()
        assert spools(tmp_path) == 1
        call.cancel()
        await until(lambda: spools(tmp_path) == 0)
        assert await take(client) == list(range(2, 22))
        await until(lambda: spools(tmp_path) == 0)


def spools(directory: Path) -> int:
    """Count the open files without a name below a directory."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        count += target.startswith(f"{directory}/") and target.endswith("(deleted)")
    return count


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.01)
