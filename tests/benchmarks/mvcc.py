"""Measure the hot paths of the store in plain Python: no server, no database.

    python tests/benchmarks/mvcc.py [--keys 100000]

Prints microseconds of CPU an operation, the best of several rounds.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from datastore.shim.mvcc import ops
from datastore.shim.mvcc.auth import Auth
from datastore.shim.mvcc.overlay import Overlay
from datastore.shim.mvcc.store import Store
from datastore.shim.mvcc.wire import frame_key_value

BATCH = 64
ROUNDS = 7
VALUE = b"x" * 1024
PREFIX, END = b"/registry/pods/", b"/registry/pods0"


def key(number: int) -> bytes:
    return b"/registry/pods/default/pod-%08d" % number


def fill(keys: int) -> Store:
    """Return a store with so many keys of 1 KiB, a hundredth of them updated once."""
    store = Store(cache_bytes=4 << 30)
    numbers = [*range(keys), *range(0, keys, 100)]
    for at in range(0, len(numbers), 500):
        overlay = Overlay(store, {})
        for number in numbers[at : at + 500]:
            overlay.evaluate(ops.Put(key(number), VALUE))
        store.apply(overlay.applied())
    return store


def measure(name: str, count: int, run: Callable[[], object]) -> None:
    """Print the best CPU time of one of the `count` operations of `run`."""
    best = float("inf")
    for _ in range(ROUNDS):
        gc.collect()
        started = time.process_time()
        run()
        best = min(best, time.process_time() - started)
    print(f"{name:46} {best / count * 1e6:10.2f} us")


def update(store: Store, number: int) -> ops.Txn:
    version = store.index.find(key(number))
    mod = version.mod_revision if version else 0
    compare = ops.Compare(ops.CompareTarget.MOD, ops.EQUAL, key(number), mod)
    return ops.Txn((compare,), (ops.Put(key(number), VALUE),), (ops.Range(key(number)),))


def writes(store: Store, make: Callable[[int], list[ops.Write]]) -> tuple[float, float]:
    """Return the best evaluate and apply times, in us a write, over batches."""
    evaluated, applied = [], []
    for turn in range(200):
        batch = make(turn * BATCH)
        started = time.process_time_ns()
        overlay = Overlay(store, {})
        for write in batch:
            overlay.evaluate(write)
        middle = time.process_time_ns()
        store.apply(overlay.applied())
        ended = time.process_time_ns()
        evaluated.append(middle - started)
        applied.append(ended - middle)
    return sorted(evaluated)[50] / BATCH / 1e3, sorted(applied)[50] / BATCH / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    keys = parser.parse_args().keys
    started = time.process_time()
    store = fill(keys)
    print(f"fill {keys} keys: {time.process_time() - started:.2f} s")
    gc.freeze()

    number = 1 << 60
    measure(
        "encode a 1 KiB KeyValue",
        10_000,
        lambda: [frame_key_value(b"k" * 40, 9999, 99999, 3, VALUE, 0) for _ in range(10_000)],
    )
    batches: dict[str, Callable[[int], list[ops.Write]]] = {
        "put, new key": lambda at: [ops.Put(key(number + at + n), VALUE) for n in range(BATCH)],
        "put, same key": lambda at: [ops.Put(key(at + n), VALUE) for n in range(BATCH)],
        "update txn": lambda at: [update(store, at + n) for n in range(BATCH)],
        "failed update txn": lambda at: [
            ops.Txn(
                (ops.Compare(ops.CompareTarget.MOD, ops.EQUAL, key(n), 1),),
                (),
                (ops.Range(key(n)),),
            )
            for n in range(BATCH)
        ],
        "delete": lambda at: [ops.DeleteRange(key(number + at + n)) for n in range(BATCH)],
    }
    for name, make in batches.items():
        evaluated, applied = writes(store, make)
        print(f"{name + ': evaluate, apply':46} {evaluated:10.2f} us {applied:6.2f} us")

    def get(number: int) -> object:
        return store.read(ops.Range(key(number), limit=1))

    now = store.revision
    measure("get", 10_000, lambda: [get(n) for n in range(10_000)])
    measure(
        "count of all",
        100,
        lambda: [store.read(ops.Range(PREFIX, END, count_only=True)) for _ in range(100)],
    )
    measure(
        "count of all, 1,000 revisions ago",
        10,
        lambda: [
            store.read(ops.Range(PREFIX, END, revision=now - 1000, count_only=True))
            for _ in range(10)
        ],
    )
    measure(
        "list page of 500",
        20,
        lambda: [store.read(ops.Range(key(n * 500), END, 500)) for n in range(20)],
    )
    measure(
        "list page of 500, 1,000 revisions ago",
        20,
        lambda: [store.read(ops.Range(key(n * 500), END, 500, now - 1000)) for n in range(20)],
    )
    measure("list 10,000", 1, lambda: store.read(ops.Range(PREFIX, END, 10_000)))
    measure(
        "list 10,000, keys only",
        1,
        lambda: store.read(ops.Range(PREFIX, END, 10_000, keys_only=True)),
    )
    changes = len(store.index.recent)
    overlay = Overlay(store, {})
    overlay.evaluate(ops.Compact(now))
    store.apply(overlay.applied())
    steps = [time.process_time()]
    while store.tidy():
        steps.append(time.process_time())
    steps.append(time.process_time())
    longest = max(end - start for start, end in pairwise(steps))
    print(
        f"compaction after {changes} changes: {steps[-1] - steps[0]:.3f} s, "
        f"{store.garbage} rows, longest step {longest * 1e3:.1f} ms"
    )
    started = time.process_time()
    overlay = Overlay(store, {})
    overlay.evaluate(ops.DeleteRange(key(0), key(keys // 2)))
    middle = time.process_time()
    store.apply(overlay.applied())
    print(
        f"delete of {len(overlay.rows)} keys at once: {middle - started:.2f} s to evaluate, "
        f"{time.process_time() - middle:.2f} s to apply"
    )
    metas = [v.meta for v in sorted(store.index.latest.values(), key=lambda v: v.id)]
    from datastore.shim.backends.api import Head

    head = Head(0, store.revision, store.compacted, -1, 1, 1)
    started = time.process_time()
    Store.load(head, [metas], (), (), 0, auth=Auth())
    print(f"load of {len(metas)} rows: {time.process_time() - started:.2f} s")


if __name__ == "__main__":
    main()
