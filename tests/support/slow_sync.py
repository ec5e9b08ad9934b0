"""A disk whose syncs wait, for a database server that loads `slow_sync.c` before all else."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class Gate:
    """Holds syncs back while it is closed."""

    def __init__(self, directory: Path) -> None:
        """Build the library into `directory`, which the server must be able to read."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        assert compiler, "a C compiler is missing: install gcc"
        self.library = directory / "slow_sync.so"
        self._file = directory / "gate"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", self.library, SOURCE, "-ldl"], check=True
        )

    @property
    def environment(self) -> list[str]:
        """What a server is started with, as arguments of env."""
        return [f"LD_PRELOAD={self.library}", f"BYRE_TEST_GATE={self._file}"]

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Let no sync return meanwhile."""
        self._file.touch()
        try:
            yield
        finally:
            self.open()

    def open(self) -> None:
        """Let syncs go on."""
        self._file.unlink(missing_ok=True)
