"""What it costs the hub to publish: microseconds per delivered event, without a transport.

Run: python tests/benchmarks/watch.py
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping, Sequence

from datastore.shim.backends.api import Page, RowId, to_row_id
from datastore.shim.mvcc.store import Applied, Store
from datastore.shim.mvcc.version import Change, Version
from datastore.shim.mvcc.wire import frame, varint
from datastore.shim.watch.history import HistoryReader
from datastore.shim.watch.hub import Hub
from datastore.shim.watch.watcher import Watcher, WatchSpec

VALUE = b"v" * 512


class Sink:
    """Makes the response as rpc does, and keeps the last one."""

    def __init__(self) -> None:
        self.last = b""
        self.taken = 0
        self._header = (0, b"")

    def events(self, watcher: Watcher, revision: int, body: bytes, last_part: bool) -> int:
        if self._header[0] != revision:
            self._header = (revision, frame(b"\x0a", b"\x18" + varint(revision)))
        self.last = b"".join((self._header[1], b"\x10", varint(watcher.id), body))
        self.taken += 1
        return 0

    def progress(self, watcher: Watcher | None, revision: int) -> None:
        self.taken += 1

    def canceled(self, watcher: Watcher, compact_revision: int) -> None:
        raise AssertionError("nothing is compacted here")


class Bench:
    """A store and a hub that is fed puts."""

    def __init__(self) -> None:
        self.store = Store(cache_bytes=256 << 20)
        self.hub = Hub(self.store, HistoryReader(self.store, _no_history, _no_values))
        self.sink = Sink()

    def watch(self, count: int, key: Callable[[int], bytes], streams: int = 20) -> None:
        sinks = [self.sink, *(Sink() for _ in range(streams - 1))]
        for n in range(count):
            prefix = key(n)
            spec = WatchSpec(prefix, prefix[:-1] + bytes((prefix[-1] + 1,)), prev_kv=True)
            self.hub.watch(spec, sinks[n % streams], n + 1)

    def changes(self, keys: Sequence[bytes]) -> list[list[Change]]:
        """Commit a put of each key, and return what is to be published."""
        commits = []
        for key in keys:
            revision = self.store.revision + 1
            before = self.store.at(key, self.store.revision)
            version = Version(
                to_row_id(revision, 0),
                key,
                before.create_revision if before else revision,
                before.version + 1 if before else 1,
                0,
            )
            version.framed = version.encode(VALUE)
            commits.append(self.store.apply(Applied(revision, [version])))
        return commits

    def publish(self, commits: Sequence[Sequence[Change]]) -> float:
        """Return the seconds it takes, of this process alone."""
        revision = self.hub.revision
        gc.collect()
        begun = time.process_time()
        for changes in commits:
            revision += 1
            self.hub.publish(revision, changes)
        return time.process_time() - begun


async def _no_history(first: int, last: int, limit: int) -> Page:
    raise AssertionError("nobody lags here")


async def _no_values(ids: Sequence[RowId]) -> Mapping[RowId, bytes]:
    raise AssertionError("nobody lags here")


def report(name: str, seconds: float, events: int) -> None:
    print(f"{name:58} {seconds / events * 1e6:8.2f} us")


def prefix(n: int) -> Callable[[int], bytes]:
    """Return which of `n` prefixes a watcher has."""
    return lambda watcher: b"/registry/r%05d/" % (watcher % n)


def one_prefix(watchers: int) -> None:
    bench = Bench()
    bench.watch(watchers, prefix(1))
    commits = bench.changes([b"/registry/r00000/%04d" % (n % 500) for n in range(2000)])
    seconds = bench.publish(commits)
    delivered = bench.hub.counts().events
    assert delivered == watchers * len(commits)
    report(f"{watchers} watchers of one prefix, an event delivered", seconds, delivered)


def many_prefixes(watchers: int, prefixes: int) -> None:
    bench = Bench()
    bench.watch(watchers, prefix(prefixes))
    commits = bench.changes([b"/registry/r%05d/x" % (n * 7919 % prefixes) for n in range(3000)])
    seconds = bench.publish(commits)
    name = f"{watchers} watchers over {prefixes} prefixes, a put"
    report(name, seconds, len(commits))


def unwatched() -> None:
    bench = Bench()
    commits = bench.changes([b"/other/%05d" % n for n in range(5000)])
    report("nobody watches, a put", bench.publish(commits), len(commits))


def one_large_revision(keys: int) -> None:
    bench = Bench()
    bench.watch(1, prefix(1))
    revision = bench.store.revision + 1
    versions = [
        Version(to_row_id(revision, n), b"/registry/r00000/%06d" % n, 0, 0, 0) for n in range(keys)
    ]
    changes = bench.store.apply(Applied(revision, versions))
    report(f"{keys} deletions in one revision, an event", bench.publish([changes]), keys)


def progress(watchers: int) -> None:
    bench = Bench()
    bench.watch(watchers, prefix(1000), streams=1)
    begun = time.process_time()
    for _ in range(1000):
        bench.hub.request_progress(bench.sink)
    name = f"a progress request of a stream with {watchers} watchers"
    report(name, time.process_time() - begun, 1000)


def registering(watchers: int, prefixes: int) -> None:
    bench = Bench()
    begun = time.process_time()
    bench.watch(watchers, prefix(prefixes))
    name = f"registering {watchers} watchers of {prefixes} prefixes, each"
    report(name, time.process_time() - begun, watchers)


async def main() -> None:
    unwatched()
    for watchers in (1, 10, 200, 1000):
        one_prefix(watchers)
    for prefixes in (70, 1000, 10_000):
        many_prefixes(10_000, prefixes)
    registering(10_000, 1000)
    progress(10_000)
    one_large_revision(100_000)


if __name__ == "__main__":
    asyncio.run(main())
