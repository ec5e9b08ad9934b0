"""How a data source name becomes a backend."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from datastore.shim.backends.api import NotReady
from datastore.shim.backends.memory import MemoryBackend
from datastore.shim.backends.registry import connect
from datastore.shim.backends.sqlite import SQLiteBackend


@pytest.mark.parametrize(
    "name",
    [
        "sqlite://{}/state.db",
        "sqlite://{}/state.db?_journal=WAL&cache=shared",
        "sqlite://file:{}/state.db?mode=rwc",
        "sqlite+pysqlite:///{}/state.db",
        "sqlite://state.db",
    ],
)
def test_names_of_a_sqlite_file(tmp_path: Path, name: str) -> None:
    backend = connect(name.format(tmp_path), base_dir=tmp_path)
    assert isinstance(backend, SQLiteBackend)
    backend.open()
    assert (tmp_path / "state.db").exists()
    backend.close()


def test_memory_is_a_store_of_its_own() -> None:
    backend = connect("memory://")
    assert isinstance(backend, MemoryBackend)
    backend.open()
    backend.close()


def test_an_unknown_scheme_is_told_which_there_are() -> None:
    with pytest.raises(
        NotReady, match="must begin with one of sqlite://, postgresql://"
    ) as caught:
        connect("oracle://user:secret@host/db")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["sqlite://", "sqlite://:memory:", "sqlite:///x?mode=ro"])
def test_a_name_without_a_usable_file_is_refused(name: str) -> None:
    with pytest.raises(NotReady):
        connect(name)


def test_drivers_are_imported_when_they_are_used() -> None:
    script = (
        "import sys; import datastore.shim.backends.registry; "
        "sys.exit('sqlite3' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
