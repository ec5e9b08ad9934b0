"""A directory in memory, where syncs cost nothing, for tests that open hundreds of stores."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def make_directory() -> tempfile.TemporaryDirectory[str]:
    """Return a directory in memory, or an ordinary one where there is none in memory."""
    return tempfile.TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)


@contextmanager
def quick_directory() -> Iterator[Path]:
    """Give such a directory, without symbolic links in its name, and remove it."""
    with make_directory() as directory:
        yield Path(directory).resolve()
