"""What the SQLite backend does when the disk, the file or another program misbehaves."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from datastore.shim.backends.api import Appended, Corrupt, Full, NotReady, Unavailable
from datastore.shim.backends.sqlite import SQLiteBackend
from tests.support import batches
from tests.support.running import eventually

WRITE = """
import sys
from datastore.shim.backends.sqlite import SQLiteBackend
from tests.support import batches
backend = SQLiteBackend(sys.argv[1])
head = backend.open()
while True:
    batch = batches.keys(head, *(batches.put(head.revision + 1, sub) for sub in range(3)))
    head = batches.commit(backend, batch)
    print(head.change, batch.batch.hex(), flush=True)
"""


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def test_kill_loses_nothing_that_was_acknowledged(path: Path) -> None:
    acknowledged: dict[int, bytes] = {}
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(40):
                change, batch = process.stdout.readline().split()
                acknowledged[int(change)] = bytes.fromhex(batch)
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                if not line.endswith("\n"):
                    break  # killed half-way through it
                change, batch = line.split()
                acknowledged[int(change)] = bytes.fromhex(batch)
    backend = SQLiteBackend(path)
    head = backend.open()
    assert head.change >= len(acknowledged) >= 80
    for number, batch_id in acknowledged.items():
        commit = backend.commit(number)
        assert commit is not None
        assert commit.batch == batch_id
    assert len(backend.history(1, head.revision, 10**6).rows) == 3 * head.change
    backend.close()


def test_a_full_disk_refuses_a_batch_and_keeps_the_rest(backend: SQLiteBackend) -> None:
    head = batches.fill(backend, [[b"a"]])
    assert backend._connections is not None
    writer = backend._connections.writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone()
    large = batches.keys(head, batches.put(3, 0, b"large", bytes(1 << 20)))
    with pytest.raises(Full, match="no space left"):
        backend.append(large)
    assert backend.head() == head
    assert backend.commit(2) is None
    assert backend.stats.full == 1
    head = batches.commit(backend, batches.empty(head))
    writer.execute("PRAGMA max_page_count = 100000").fetchone()
    batches.commit(backend, large._replace(expected=head.change))


def test_a_full_disk_has_the_wal_written_from_its_start_again(backend: SQLiteBackend) -> None:
    head = batches.fill(backend, [[b"a", b"b"]] * 50)
    assert backend._connections is not None
    writer, wal = backend._connections.writer, backend._connections.wal
    used = wal.used_bytes()
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    large = batches.keys(head, batches.put(head.revision + 1, 0, b"large", bytes(1 << 20)))
    with pytest.raises(Full):
        backend.append(large)
    eventually(lambda: backend.stats.checkpoint_seconds.count > 0, "the WAL is copied")
    batches.commit(backend, batches.empty(head))
    assert wal.used_bytes() < used


def test_what_the_disk_can_take_is_known(backend: SQLiteBackend, path: Path) -> None:
    disk = os.statvfs(path)
    spare = backend.size().spare
    assert spare is not None
    assert spare < disk.f_bavail * disk.f_frsize


def test_a_batch_that_cannot_be_stored_leaves_no_trace(backend: SQLiteBackend) -> None:
    head = backend.head()
    with pytest.raises(OverflowError):
        backend.append(batches.keys(head, batches.put(2), batches.put(1 << 50)))
    assert backend.head() == head
    batches.commit(backend, batches.keys(head, batches.put(2)))


def test_a_foreign_commit_is_the_end(path: Path, backend: SQLiteBackend) -> None:
    with closing(sqlite3.connect(path)) as intruder:
        intruder.execute("INSERT INTO byre_commit VALUES (1, 1, zeroblob(16), 0, 0)")
        intruder.commit()
    with pytest.raises(Corrupt, match="somebody else writes this file"):
        backend.append(batches.empty(backend.head()._replace(change=0)))
    with pytest.raises(Corrupt, match="somebody else writes this file"):
        backend.head()


def test_another_programs_lock_is_waited_for_a_moment(path: Path, backend: SQLiteBackend) -> None:
    with closing(sqlite3.connect(path)) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="another process holds the database"):
            backend.append(batches.empty(backend.head()))
    batches.commit(backend, batches.empty(backend.head()))


def test_a_failed_sync_is_the_end(backend: SQLiteBackend) -> None:
    assert backend._connections is not None
    head = backend.head()
    reader, writer = os.pipe()
    os.dup2(reader, backend._connections.wal.descriptor)
    with pytest.raises(Corrupt, match="cannot sync"):
        backend.append(batches.empty(head))
    with pytest.raises(Corrupt, match="cannot sync"):
        backend.append(batches.empty(head))
    with pytest.raises(Corrupt, match="cannot sync"):
        backend.values([1])
    os.close(reader)
    os.close(writer)


def test_what_several_write_is_synced_beside_the_loop_and_fails_there(path: Path) -> None:
    backend = SQLiteBackend(path, syncs_beside=True)
    head = backend.open()
    with closing(backend):
        alone = backend.append(batches.keys(head, batches.put(2)))
        assert isinstance(alone, Appended)
        assert alone.file is None
        together = backend.append(batches.keys(alone.head, batches.put(3), batches.put(4)))
        assert isinstance(together, Appended)
        assert together.file is not None
        os.fdatasync(together.file.descriptor)
        together.file.done(None, 0.001)
        assert backend.head() == together.head
        with pytest.raises(Corrupt, match="cannot sync"):
            together.file.done(OSError(errno.EIO, "Input/output error"), 0.001)
        with pytest.raises(Corrupt, match="cannot sync"):
            backend.head()


def test_long_syncs_beside_the_loop_say_that_the_disk_is_slow(path: Path) -> None:
    backend = SQLiteBackend(path, syncs_beside=True)
    backend.open()
    with closing(backend):
        assert backend._connections is not None
        wal = backend._connections.wal
        wal.note(0.1, beside=False)
        for seconds in (0.01, 0.008, 0.0003) * 10:
            outcome = backend.append(batches.empty(backend.head()))
            assert isinstance(outcome, Appended)
            assert outcome.file is not None
            os.fdatasync(outcome.file.descriptor)
            outcome.file.done(None, seconds)


def test_a_sync_that_fails_in_a_thread_is_the_end(backend: SQLiteBackend) -> None:
    assert backend._connections is not None
    backend._connections.wal._slow = True
    outcome = backend.append(batches.empty(backend.head()))
    assert isinstance(outcome, Appended)
    assert outcome.sync is not None
    reader, writer = os.pipe()
    os.dup2(reader, backend._connections.wal.descriptor)
    with pytest.raises(Corrupt, match="cannot sync"):
        outcome.sync()
    with pytest.raises(Corrupt, match="cannot sync"):
        backend.head()
    os.close(reader)
    os.close(writer)


def test_a_removed_wal_is_the_end_before_anything_is_acknowledged(
    path: Path, backend: SQLiteBackend
) -> None:
    wal_of(path).unlink()
    with pytest.raises(Corrupt, match="was removed while in use"):
        backend.append(batches.empty(backend.head()))


def test_a_moved_wal_is_found(path: Path, backend: SQLiteBackend) -> None:
    backend.check()
    wal_of(path).rename(path.with_name("elsewhere"))
    with pytest.raises(Corrupt, match="removed or replaced"):
        backend.check()


def test_a_replaced_database_is_found(path: Path, backend: SQLiteBackend) -> None:
    head = backend.head()
    other = path.with_name("other.db")
    other.write_bytes(b"")
    other.rename(path)
    with pytest.raises(Corrupt, match="was replaced while in use"):
        backend.check()
    with pytest.raises(Corrupt, match="was replaced while in use"):
        backend.append(batches.empty(head))


def test_a_removed_database_is_found(path: Path, backend: SQLiteBackend) -> None:
    path.unlink()
    with pytest.raises(Corrupt, match="was removed while in use"):
        backend.check()


def test_damage_is_found_by_whoever_reads_it(path: Path) -> None:
    backend = SQLiteBackend(path)
    backend.open()
    batches.fill(backend, [[b"%d" % number + bytes(200) for number in range(2000)]])
    backend.close()
    with path.open("r+b") as file:
        file.seek(10 * 8192)
        file.write(b"\xff" * 8192 * 20)
    with pytest.raises((Corrupt, NotReady)):
        backend.open()
        with backend.load() as (_, _, pages):
            for _ in pages:
                pass
    backend.close()
