"""Every backend, each in a place of its own, and the proof that it leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from datastore.shim.backends.api import Backend
from datastore.shim.backends.memory import Log, MemoryBackend
from datastore.shim.backends.sqlite import SQLiteBackend
from tests.support.quick_disk import quick_directory


class Clock:
    """A database clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Place(NamedTuple):
    """Somewhere a log is kept; each call of `connect` gives another server's backend on it."""

    connect: Callable[[], Backend]
    clock: Clock


def _memory(_: Path, *, shared: bool, deferred_sync: bool = False) -> Place:
    clock = Clock()
    log = Log(clock=clock)
    return Place(lambda: MemoryBackend(log, shared=shared, deferred_sync=deferred_sync), clock)


PLACES: dict[str, Callable[[Path], Place]] = {
    "memory": lambda directory: _memory(directory, shared=False),
    "memory, deferred sync": lambda directory: _memory(
        directory, shared=False, deferred_sync=True
    ),
    "sqlite": lambda directory: Place(lambda: SQLiteBackend(directory / "state.db"), Clock()),
}
SHARED_PLACES: dict[str, Callable[[Path], Place]] = {
    "shared memory": lambda directory: _memory(directory, shared=True),
}


def open_files(directory: Path) -> list[str]:
    """Return the files below `directory` that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(f"{directory}/"):
            found.append(target)
    return found


@contextmanager
def leaving_nothing(directory: Path) -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= threads
    assert not open_files(directory)


@contextmanager
def opened(place: Place) -> Iterator[Backend]:
    backend = place.connect()
    backend.open()
    yield backend
    backend.close()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory in memory instead of pytest's own."""
    with quick_directory() as directory:
        yield directory


@pytest.fixture(params=PLACES | SHARED_PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where any log is kept."""
    with leaving_nothing(tmp_path):
        yield (PLACES | SHARED_PLACES)[request.param](tmp_path)


@pytest.fixture
def backend(place: Place) -> Iterator[Backend]:
    with opened(place) as backend:
        yield backend


@pytest.fixture(params=PLACES)
def sole_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where a log is kept that only one server may use."""
    with leaving_nothing(tmp_path):
        yield PLACES[request.param](tmp_path)


@pytest.fixture(params=SHARED_PLACES)
def shared_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where a log is kept that several servers may use."""
    with leaving_nothing(tmp_path):
        yield SHARED_PLACES[request.param](tmp_path)


@pytest.fixture
def shared(shared_place: Place) -> Iterator[Backend]:
    with opened(shared_place) as backend:
        yield backend


@pytest.fixture
def other(shared_place: Place, shared: Backend) -> Iterator[Backend]:
    """Another server's backend beside `shared`."""
    with opened(shared_place) as backend:
        yield backend
