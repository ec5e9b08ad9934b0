"""A SQLite backend in a directory of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datastore.shim.backends.sqlite import SQLiteBackend
from tests.support.quick_disk import quick_directory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory in memory instead of pytest's own."""
    with quick_directory() as directory:
        yield directory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def backend(path: Path) -> Iterator[SQLiteBackend]:
    opened = SQLiteBackend(path)
    opened.open()
    yield opened
    opened.close()
