"""Syncs by the kernel, beside the loop: on a real file and a real kernel."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from datastore.shim.backends.api import Corrupt
from datastore.shim.backends.sqlite import SQLiteBackend
from datastore.shim.errors import CorruptStore
from datastore.shim.health import Health
from datastore.shim.kernel_sync import KernelSync, Unsupported, open_kernel_sync, to_error
from datastore.shim.lanes import thread_lanes
from datastore.shim.mvcc.auth import ANONYMOUS
from datastore.shim.mvcc.ops import Put
from datastore.shim.replica import Replica
from datastore.shim.writer import Writer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux AIO")


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"data")
    yield descriptor
    os.close(descriptor)


async def test_the_loop_goes_on_while_the_kernel_syncs(descriptor: int) -> None:
    with closing(KernelSync(asyncio.get_running_loop())) as kernel:
        for _ in range(100):
            error, seconds = await kernel.sync(descriptor)
            assert error is None
            assert seconds > 0


async def test_who_gives_up_a_sync_leaves_the_next_one_alone(descriptor: int) -> None:
    with closing(KernelSync(asyncio.get_running_loop())) as kernel:
        given_up = asyncio.create_task(kernel.sync(descriptor))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        error, _ = await kernel.sync(descriptor)
        assert error is None


async def test_what_cannot_be_synced_beside_the_loop_is_said_so_from_then_on(
    descriptor: int,
) -> None:
    reader, writer = os.pipe()
    kernel = KernelSync(asyncio.get_running_loop())
    for unfit in (reader, descriptor):
        with pytest.raises(Unsupported):
            await kernel.sync(unfit)
    kernel.close()
    os.close(reader)
    os.close(writer)


def test_the_kernels_answer_is_an_error_where_it_is_negative() -> None:
    assert to_error(0) is None
    error = to_error((1 << 64) - errno.EIO)
    assert error is not None
    assert error.errno == errno.EIO


async def test_a_writer_has_the_kernel_sync_what_comes_together(tmp_path: Path) -> None:
    kernel = open_kernel_sync()
    assert kernel is not None
    backend = SQLiteBackend(tmp_path / "s.db", syncs_beside=True)
    replica = Replica(backend, thread_lanes(), Health(), cache_bytes=1 << 20)
    await replica.start()
    writer = Writer(replica, kernel=kernel)
    running = asyncio.create_task(writer.run())
    try:
        await _write_together(writer)
        assert backend.stats.syncs_deferred == backend.stats.sync_seconds.count == 1

        # The kernel refuses a pipe, and so does fdatasync in the thread that is tried next.
        assert backend._connections is not None
        reader, unread = os.pipe()
        os.dup2(reader, backend._connections.wal.descriptor)
        with pytest.raises(CorruptStore, match="cannot sync"):
            await _write_together(writer)
        with pytest.raises(Corrupt, match="cannot sync"):
            backend.head()
        os.close(reader)
        os.close(unread)
    finally:
        await writer.stop()
        await running
        await replica.close()
        kernel.close()


async def _write_together(writer: Writer) -> None:
    writes = (writer.write(Put(b"%d" % n, b"v"), ANONYMOUS, 8) for n in range(4))
    await asyncio.gather(*writes)
