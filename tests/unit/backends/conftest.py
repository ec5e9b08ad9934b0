"""A SQLite backend in a directory of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from datastore.shim.backends.sqlite import SQLiteBackend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def backend(path: Path) -> Iterator[SQLiteBackend]:
    opened = SQLiteBackend(path)
    opened.open()
    yield opened
    opened.close()
