"""Shows the logs of components: the last lines, a level, and what is added."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from supervisor.output import Level, parse_level, read_tail

Writer = Callable[[str], object]


def component_logs(directory: Path, component: str | None) -> Mapping[str, Path]:
    """Return the log files by component: the one that is asked for, or all."""
    found = {path.stem: path for path in sorted(directory.glob("*.log"))}
    return found if component is None else {k: v for k, v in found.items() if k == component}


def show(files: Mapping[str, Path], count: int, level: str | None, write: Writer) -> None:
    """Write the last `count` lines of each file."""
    for name, path in files.items():
        _write(name, at_least(read_tail(path, count), level), files, write)


def follow(files: Mapping[str, Path], level: str | None, write: Writer) -> None:
    """Write what is added to the files until interrupted; a rotated file is picked up anew."""
    positions = {path: path.stat().st_size for path in files.values()}
    while True:
        for name, path in files.items():
            _write(name, at_least(_added(path, positions), level), files, write)
        time.sleep(0.25)


def at_least(lines: Iterable[bytes], level: str | None) -> Iterator[bytes]:
    """Yield the lines of a level and above; a line that names none goes with the one before."""
    threshold = Level[level.upper()] if level else Level.DEBUG
    current = Level.INFO
    for line in lines:
        current = parse_level(line) or current
        if current >= threshold:
            yield line


def _added(path: Path, positions: dict[Path, int]) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            # Smaller than before: the file has been rotated.
            file.seek(positions[path] if positions[path] <= size else 0)
            for line in file:
                if not line.endswith(b"\n"):
                    file.seek(-len(line), 1)
                    break
                yield line.rstrip(b"\n")
            positions[path] = file.tell()
    except FileNotFoundError:
        positions[path] = 0


def _write(name: str, lines: Iterable[bytes], files: Mapping[str, Path], write: Writer) -> None:
    prefix = f"{name} | " if len(files) > 1 else ""
    for line in lines:
        write(prefix + line.decode(errors="replace"))
