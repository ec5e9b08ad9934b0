"""The WAL stays small and the file shrinks, whatever goes on beside."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from datastore.shim.backends import sqlite_upkeep
from datastore.shim.backends.api import Appended, Head, to_row_id
from datastore.shim.backends.sqlite import SQLiteBackend
from tests.support import batches

VALUE = bytes(20_000)


def write(backend: SQLiteBackend, head: Head, commits: int) -> Head:
    for _ in range(commits):
        rows = [batches.put(head.revision + 1, sub, b"%d" % sub, VALUE) for sub in range(10)]
        head = batches.commit(backend, batches.keys(head, *rows))
    return head


def wal_bytes(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def test_the_wal_stays_small_beside_readers(path: Path, backend: SQLiteBackend) -> None:
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            backend.history(1, 50, 10)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        write(backend, backend.head(), 300)
        stop.set()
        reading.result()
    assert path.stat().st_size > 40 << 20
    assert wal_bytes(path) < 32 << 20
    assert backend.stats.checkpoint_seconds.count > 2


def test_a_wal_that_a_reader_kept_growing_is_restarted(
    path: Path, backend: SQLiteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "RESTART_BYTES", 6 << 20)
    head = write(backend, backend.head(), 1)
    with backend.load():
        head = write(backend, head, 100)
        assert wal_bytes(path) > 16 << 20
    # The checkpoint is a thread's: on a busy machine some more is written before its turn.
    for _ in range(60):
        head = write(backend, head, 10)
        if wal_bytes(path) < 16 << 20 and backend.stats.restarts > 1:
            break
    assert wal_bytes(path) < 16 << 20
    assert 1 < backend.stats.restarts < 20


def test_the_file_shrinks_after_a_prune(path: Path, backend: SQLiteBackend) -> None:
    head = write(backend, backend.head(), 100)
    head = batches.commit(backend, batches.compact(head, head.revision))
    before = path.stat().st_size
    rows = [to_row_id(revision, sub) for revision in range(2, 101) for sub in range(10)]
    backend.prune(head.revision, rows)
    assert path.stat().st_size < before / 10
    assert backend.stats.pruned_rows == len(rows)
    assert len(backend.history(1, 1000, 100).rows) == 10


def test_appends_go_on_while_rows_are_pruned(path: Path, backend: SQLiteBackend) -> None:
    head = write(backend, backend.head(), 100)
    head = batches.commit(backend, batches.compact(head, head.revision))
    rows = [to_row_id(revision, sub) for revision in range(2, 101) for sub in range(10)]
    with ThreadPoolExecutor(1) as pool:
        pruning = pool.submit(backend.prune, head.revision, rows)
        appended = 0
        while not pruning.done():
            head = batches.commit(backend, batches.empty(head))
            appended += 1
        pruning.result()
    assert appended > 5
    assert backend.head().pruned == 101


def test_old_commits_go_and_the_newest_stay(path: Path) -> None:
    backend = SQLiteBackend(path)
    head = backend.open()
    backend.close()
    rows = [(change, 1, b"%016d" % change, 0, 0) for change in range(1, 12_001)]
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany("INSERT INTO byre_commit VALUES (?, ?, ?, ?, ?)", rows)
        connection.commit()
    head = backend.open()
    old = backend.commit(1000)
    assert old is not None
    head = batches.commit(backend, batches.compact(head, 1))
    backend.prune(1, [])
    assert backend.commit(2001) is None
    newest = backend.commit(2002)
    assert newest is not None
    tail = backend.tail(old, 10)
    assert tail.commits[0] == newest
    assert tail.head.change == head.change == 12_001
    backend.close()


def test_the_wal_is_measured_as_sqlite_does(path: Path, backend: SQLiteBackend) -> None:
    assert backend._connections is not None
    wal = backend._connections.wal
    head = backend.head()
    for _ in range(2):
        for _ in range(20):
            head = batches.commit(backend, batches.keys(head, batches.put(head.revision + 1)))
            used = wal.used_bytes()
            with closing(sqlite3.connect(path)) as connection:
                _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            assert used == 32 + frames * (8192 + 24)


def test_a_slow_sync_is_left_to_a_thread_until_it_is_quick_again(backend: SQLiteBackend) -> None:
    assert backend._connections is not None
    wal = backend._connections.wal
    wal.mean_seconds, wal._slow = 0.0001, False
    for _ in range(30):
        wal.note(0.005, beside=False)
    assert wal.is_slow()
    outcome = backend.append(batches.empty(backend.head()))
    assert isinstance(outcome, Appended)
    assert outcome.sync is not None
    assert outcome.file is None
    wal.note(0.02, beside=True)
    for _ in range(30):
        wal.note(0.0002, beside=True)
    assert not wal.is_slow()


def test_one_hiccup_of_the_disk_is_soon_forgotten(backend: SQLiteBackend) -> None:
    assert backend._connections is not None
    wal = backend._connections.wal
    wal.mean_seconds, wal._slow = 0.0001, False
    wal.note(3.0, beside=False)
    for _ in range(10):
        wal.note(0.0002, beside=True)
    assert not wal.is_slow()
