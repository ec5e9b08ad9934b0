"""What a snapshot of a large store costs, and what happens where there is no room for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, path
from tests.support.running import Server
from tests.support.shim import shim

MIB = 1 << 20
VALUES = 120
"""Of one MiB each."""
PEAK_BYTES = 48 * MIB
FILE_BYTES = 8 * MIB


def peak(server: Server) -> int:
    """Return the most memory that the server has had since `forget_peak`, in bytes."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def forget_peak(server: Server) -> None:
    """Measure from now on (proc(5): clear_refs)."""
    assert server.process is not None
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


async def take(client: Client) -> AsyncIterator[pb.SnapshotResponse]:
    """Give the messages of a snapshot."""
    method = client.channel.unary_stream(
        path("Maintenance/Snapshot"), response_deserializer=pb.SnapshotResponse.FromString
    )
    async for message in method(b"", timeout=120):
        yield message


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Run a server that keeps next to no values in memory."""
    made = shim(tmp_path, "sqlite", ["--value-cache-bytes=1000000"])
    made.start()
    yield made
    made.close()


async def test_memory_does_not_grow_with_the_store(server):
    async with Client(server.target) as client:
        for number in range(VALUES):
            await client.put(b"%d" % number, bytes(MIB))
        forget_peak(server)
        before = peak(server)
        size = 0
        async for message in take(client):
            size += len(message.blob)
        assert size > VALUES * MIB
        assert peak(server) - before < PEAK_BYTES


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Server]:
    """Run a server that may write no large file."""
    made = shim(tmp_path, "memory")
    made.argv = ["prlimit", f"--fsize={FILE_BYTES}", *made.argv]
    made.start()
    yield made
    made.close()


async def test_without_room_for_the_file_it_says_so_and_goes_on(small):
    async with Client(small.target) as client:
        for number in range(2 * FILE_BYTES // MIB):
            await client.put(b"%d" % number, bytes(MIB))
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                [_ async for _ in take(client)]
            assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "the snapshot cannot be written to /" in (refusal.value.details() or "")
            assert (refusal.value.details() or "").endswith(": file too large")
        await client.delete(b"\0", b"\0")
        await client.compact(await client.revision(), physical=True)
        assert [message async for message in take(client)]
