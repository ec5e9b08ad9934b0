"""Obtain programs the way byre does, and put them into a directory."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from rich.console import Console

from datastore.paths import Paths
from supervisor.binaries import Binaries, BinaryError
from supervisor.progress import TerminalProgress


def main(directory: Path, names: list[str]) -> int:
    """Obtain every program of `names`."""
    with TerminalProgress(Console(stderr=True)) as progress:
        try:
            found = Binaries(Paths.default().cache_dir, progress=progress).obtain_all(names)
        except BinaryError as error:
            print(error, file=sys.stderr)
            return 1
    directory.mkdir(parents=True, exist_ok=True)
    for name, path in found.items():
        shutil.copy(path, directory / name)
        (directory / name).chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
