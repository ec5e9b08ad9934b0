"""Measure appends to SQLite: rows per second and processor time, by size of the batch.

Run it as ``python -m tests.benchmarks.sqlite_append [DIRECTORY]``; the directory decides which
disk is measured. A directory in memory (/dev/shm) leaves only the processor's part.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from pathlib import Path

from datastore.shim.backends.api import Appended, Batch, Head, Kinds, Meta, Row, to_row_id
from datastore.shim.backends.sqlite import SQLiteBackend

VALUE = bytes(1024)
SECONDS = 3.0


def to_batch(head: Head, rows: int) -> Batch:
    first = head.revision + 1
    return Batch(
        secrets.token_bytes(16),
        head.change,
        head.revision + rows,
        Kinds.LOG,
        [
            Row(Meta(to_row_id(revision, 0), revision, 1, 0, b"/registry/%d" % revision), VALUE)
            for revision in range(first, first + rows)
        ],
    )


def measure(directory: Path, rows: int) -> str:
    backend = SQLiteBackend(directory / f"{rows}.db")
    head, commits, slowest = backend.open(), 0, 0.0
    started, processor = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < SECONDS:
        begun = time.perf_counter()
        outcome = backend.append(to_batch(head, rows))
        assert isinstance(outcome, Appended)
        if outcome.sync is not None:
            outcome.sync()
        head = outcome.head
        commits += 1
        slowest = max(slowest, time.perf_counter() - begun)
    elapsed, processor = time.perf_counter() - started, time.process_time() - processor
    stats, total = backend.stats, commits * rows
    backend.close()
    return (
        f"{rows:5} {total / elapsed:10.0f} {commits / elapsed:10.0f} "
        f"{processor / total * 1e6:10.1f} {stats.append_seconds.total / commits * 1e6:12.0f} "
        f"{stats.sync_seconds.total / commits * 1e6:10.0f} {slowest * 1e3:10.1f} "
        f"{stats.checkpoint_seconds.count:8}"
    )


def main() -> None:
    where = sys.argv[1] if len(sys.argv) > 1 else None
    print(
        f"{'rows':>5} {'rows/s':>10} {'commits/s':>10} {'cpu us/row':>10} {'append us':>12} "
        f"{'sync us':>10} {'max ms':>10} {'checkpts':>8}"
    )
    with tempfile.TemporaryDirectory(dir=where) as directory:
        for rows in (1, 8, 64):
            print(measure(Path(directory), rows), flush=True)


if __name__ == "__main__":
    main()
