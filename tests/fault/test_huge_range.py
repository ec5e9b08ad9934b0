"""A range of a gigabyte: the server stays small, and serves others meanwhile."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support import bulk_reader
from tests.support.client import Client
from tests.support.memory import forget_peak, peak_rss_bytes, rss_bytes
from tests.support.running import Server
from tests.support.shim import shim

pytestmark = [pytest.mark.soak]

KEYS = 1024
VALUE_BYTES = 1 << 20
FIRST, END = b"huge/", b"huge0"
SETTLED = b"small"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = shim(tmp_path, "sqlite")
    started.start()
    yield started
    started.close()


class Prober:
    """Reads and writes a small key all the time, and keeps how long each call took."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.seconds: list[float] = []

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Go on while the body runs."""
        task = asyncio.create_task(self._probe())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _probe(self) -> None:
        async with Client(self._target) as client:
            while True:
                begun = time.perf_counter()
                await client.get(SETTLED)
                await client.put(SETTLED)
                self.seconds.append(time.perf_counter() - begun)
                await asyncio.sleep(0.005)

    def tell(self, what: str, grown: int) -> None:
        """Print what others had to bear."""
        waits = sorted(1000 * seconds for seconds in self.seconds)
        half, most = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
        print(f"{what}: memory grew {grown >> 20} MiB; {len(waits)} reads and writes of others:")
        print(f"  p50 {half:.1f} ms, p99 {most:.1f} ms, at most {waits[-1]:.1f} ms")


@pytest.mark.parametrize(
    ("method", "readers", "most_mib"), [("RangeStream", 4, 256), ("Range", 1, 1280)]
)
async def test_a_gigabyte_is_read_while_others_are_served(
    server: Server, capsys: pytest.CaptureFixture[str], method: str, readers: int, most_mib: int
) -> None:
    """A Range is one message, whose values are all there first: RangeStream is how to avoid that.

    They are shared with the cache, and leave without being copied into one.
    """
    async with Client(server.target) as client:
        for number in range(KEYS):
            await client.put(FIRST + b"%04d" % number, os.urandom(VALUE_BYTES))
    assert server.process is not None
    pid = server.process.pid
    before = rss_bytes(pid)
    forget_peak(pid)
    prober = Prober(server.target)
    async with prober.working():
        reading = [bulk_reader.start(server.target, method, FIRST, END) for _ in range(readers)]
        said = await asyncio.gather(*(asyncio.to_thread(one.communicate) for one in reading))
    assert all(int(out) > KEYS * VALUE_BYTES for out, _ in said)
    grown = peak_rss_bytes(pid) - before
    with capsys.disabled():
        prober.tell(f"{readers} {method} of {KEYS} MiB", grown)
    assert grown < most_mib << 20
