"""How late a watcher on one server learns of writes through another, on one database.

Run: python tests/benchmarks/crosswatch.py [--kind postgresql] [--rate 500] [--seconds 10]

Writes are sent at a fixed rate, whatever the answers do. Delays are counted from the sending of a
write and from its acknowledgement to the arrival of its event, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.client import Client, prefix_end
from tests.support.cluster import running_cluster

PREFIX = b"/registry/cross/"
VALUE = b"v" * 1024
KEYS = 1000
WARM_SECONDS = 2.0


async def send(client: Client, rate: float, count: int) -> Mapping[int, tuple[float, float]]:
    """Send writes at the rate; return when each revision was sent and acknowledged."""
    times: dict[int, tuple[float, float]] = {}
    began = time.perf_counter()

    async def put(number: int) -> None:
        sent = time.perf_counter()
        answer = await client.put(PREFIX + b"%d" % (number % KEYS), VALUE)
        times[answer.header.revision] = sent, time.perf_counter()

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            group.create_task(put(number))
    return times


async def measure(targets: Sequence[str], rate: float, seconds: float) -> None:
    seen: dict[int, float] = {}
    async with (
        Client(targets[0]) as writer,
        Client(targets[1]) as watcher,
        watcher.watch() as stream,
    ):
        await stream.create(PREFIX, prefix_end(PREFIX))

        async def watch() -> None:
            while True:
                response = await stream.next(3600)
                now = time.perf_counter()
                seen.update((event.kv.mod_revision, now) for event in response.events)

        watching = asyncio.create_task(watch())
        await send(writer, rate, int(rate * WARM_SECONDS))
        began = time.perf_counter()
        times = await send(writer, rate, int(rate * seconds))
        lasted = time.perf_counter() - began
        async with asyncio.timeout(10):
            while not times.keys() <= seen.keys():  # noqa: ASYNC110 - what is late still counts
                await asyncio.sleep(0.01)
        watching.cancel()
    print(f"{len(times)} writes at {len(times) / lasted:.0f}/s, each seen on the other server")
    show("sent to acknowledged", [acked - sent for sent, acked in times.values()])
    show("sent to seen", [seen[revision] - sent for revision, (sent, _) in times.items()])
    show("acknowledged to seen", [seen[revision] - at for revision, (_, at) in times.items()])


def show(what: str, delays: Sequence[float]) -> None:
    cuts = statistics.quantiles([1000 * delay for delay in delays], n=100)
    print(f"{what:22} p50 {cuts[49]:7.1f}  p90 {cuts[89]:7.1f}  p99 {cuts[98]:7.1f}", end="")
    print(f"  max {1000 * max(delays):7.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", default="postgresql", choices=["postgresql", "mariadb"])
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        running_cluster(arguments.kind, Path(directory), size=2) as cluster,
    ):
        asyncio.run(measure(cluster.targets, arguments.rate, arguments.seconds))


if __name__ == "__main__":
    main()
