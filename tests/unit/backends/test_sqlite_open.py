"""Which files the SQLite backend takes, which it refuses, and what it says."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from datastore.shim.backends.api import NotReady
from datastore.shim.backends.sqlite import SQLiteBackend
from tests.support import batches

HOLD = """
import sys
from datastore.shim.backends.sqlite import SQLiteBackend
backend = SQLiteBackend(sys.argv[1])
backend.open()
print("open", flush=True)
sys.stdin.read()
backend.close()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process


def write_tables(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def create(path: Path) -> None:
    backend = SQLiteBackend(path)
    backend.open()
    backend.close()


def refused(path: Path) -> str:
    with pytest.raises(NotReady) as caught:
        SQLiteBackend(path).open()
    return str(caught.value)


def test_a_second_process_is_refused_by_name_of_the_file_and_pid(path: Path) -> None:
    with holder(path) as process:
        assert refused(path) == (
            f"{path} is in use by process {process.pid}: stop that server first, or give this "
            "one another file"
        )
        process.communicate("")
    create(path)


def test_a_killed_process_holds_no_lock(path: Path) -> None:
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    create(path)


def test_another_path_to_the_same_file_is_locked_too(path: Path, backend: SQLiteBackend) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    assert "is in use by process" in refused(link)
    elsewhere = path.parent / "directory"
    elsewhere.symlink_to(path.parent)
    assert "is in use by process" in refused(elsewhere / path.name)


def test_a_file_with_two_names_is_refused(path: Path) -> None:
    create(path)
    os.link(path, path.with_name("copy.db"))
    assert "has 2 names (hard links)" in refused(path)


def test_nothing_but_the_database_is_left_after_close(path: Path) -> None:
    backend = SQLiteBackend(path)
    batches.commit(backend, batches.empty(backend.open()))
    backend.close()
    assert list(path.parent.iterdir()) == [path]


def test_files_are_for_their_owner_only(path: Path, backend: SQLiteBackend) -> None:
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_a_readable_store_is_named(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.touch(0o644)
    with caplog.at_level(logging.WARNING):
        create(path)
    assert "chmod 600" in caplog.text


def test_a_store_is_laid_out_to_shrink(path: Path, backend: SQLiteBackend) -> None:
    with closing(sqlite3.connect(path)) as connection:
        pragmas = ("page_size", "auto_vacuum", "journal_mode")
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
        tables = connection.execute("PRAGMA table_list").fetchall()
    assert found == [8192, 2, "wal"]
    ours = [table for table in tables if table[1].startswith("byre_")]
    assert len(ours) == 6
    assert {(without_rowid, strict) for *_, without_rowid, strict in ours} == {(0, 1)}


def test_the_identity_stays(path: Path) -> None:
    heads = []
    for _ in range(2):
        backend = SQLiteBackend(path)
        heads.append(backend.open())
        backend.close()
    assert heads[0] == heads[1]


def test_a_newer_schema_is_refused_and_kept(path: Path) -> None:
    create(path)
    write_tables(path, "UPDATE byre_head SET schema_version = 99")
    before = path.read_bytes()
    assert "written by a newer byre (schema 99, this one knows 1)" in refused(path)
    assert path.read_bytes() == before


def test_a_store_without_its_head_is_damaged(path: Path) -> None:
    create(path)
    write_tables(path, "DELETE FROM byre_head")
    assert "damaged" in refused(path)


def test_a_kine_database_is_refused_and_kept(path: Path) -> None:
    write_tables(path, "CREATE TABLE kine (id INTEGER PRIMARY KEY, name TEXT)")
    before = path.read_bytes()
    assert "holds kine's data" in refused(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused(path: Path) -> None:
    write_tables(path, "CREATE TABLE bookmarks (url TEXT)")
    assert "another program's database" in refused(path)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"dear diary\n" * 1000)
    assert refused(path) == f"{path} is not a SQLite database: choose another file"
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_is_no_database(path: Path) -> None:
    path.mkdir()
    assert "is not a file" in refused(path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "missing"
    assert (
        refused(directory / "state.db") == f"the directory {directory} does not exist: create it"
    )


def test_open_twice_is_refused_and_harmless(path: Path, backend: SQLiteBackend) -> None:
    with pytest.raises(NotReady, match="open already"):
        backend.open()
    batches.commit(backend, batches.empty(backend.head()))


def test_links_in_a_circle_are_named(path: Path) -> None:
    path.symlink_to(path)
    assert refused(path).startswith(f"cannot use {path}: ")


def test_a_name_that_is_too_long_is_refused(path: Path) -> None:
    assert "File name too long" in refused(path.with_name("x" * 300))
