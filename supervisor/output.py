"""The output of one component: a rotated log file, its last lines, and the level of a line."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

LONGEST_LINE = 64 * 1024
"""A line beyond this many bytes is written in pieces: a flood without newlines needs no memory."""

_KLOG = re.compile(rb"^([IWEF])\d{4} \d\d:\d\d:\d\d")
_KEYED = re.compile(rb'\b(?:level|lvl|severity)="?([A-Za-z]+)')
_WORD = re.compile(rb"^(?:\S+ ){0,3}\[?(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)\b")


class Level(IntEnum):
    """The weight of a line, on the scale of the standard library's logging."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


_NAMES = {
    "i": Level.INFO,
    "w": Level.WARNING,
    "e": Level.ERROR,
    "f": Level.CRITICAL,
    "trace": Level.DEBUG,
    "debug": Level.DEBUG,
    "info": Level.INFO,
    "notice": Level.INFO,
    "warn": Level.WARNING,
    "warning": Level.WARNING,
    "error": Level.ERROR,
    "dpanic": Level.CRITICAL,
    "panic": Level.CRITICAL,
    "fatal": Level.CRITICAL,
    "critical": Level.CRITICAL,
}


def parse_level(line: bytes) -> Level | None:
    """Return the level that a line names, or None for a line that names none.

    Understood are klog (Kubernetes), zap's JSON (etcd), logrus (kine) and Python's logging.
    """
    if match := _KLOG.match(line):
        return _NAMES[match[1].decode().lower()]
    if line.startswith(b"{"):
        return _json_level(line)
    match = _WORD.match(line[:200]) or _KEYED.search(line[:400])
    return _NAMES.get(match[1].decode().lower()) if match else None


def _json_level(line: bytes) -> Level | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    word = record.get("level", record.get("severity"))
    return _NAMES.get(word.lower()) if isinstance(word, str) else None


class ComponentLog:
    """Writes what a component says to `path`, and keeps the last lines in memory.

    At `max_bytes` the file becomes ``path.1``, ``path.1`` becomes ``path.2``, and so on up to
    `keep`. A disk that is full costs lines of the log, never the component.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 10 * 1024 * 1024,
        keep: int = 3,
        remember: int = 20,
        on_line: Callable[[bytes], None] | None = None,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._last: deque[bytes] = deque(maxlen=remember)
        self._partial = b""
        self._on_line = on_line
        self._file: BinaryIO | None = None
        self._size = 0
        self.lost_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of output, whatever their boundaries."""
        self._partial += chunk
        *lines, self._partial = self._partial.split(b"\n")
        while len(self._partial) > LONGEST_LINE:
            lines.append(self._partial[:LONGEST_LINE])
            self._partial = self._partial[LONGEST_LINE:]
        self._write(lines)

    def end(self) -> None:
        """Take the end of a run: what stands without a newline is a line too."""
        if self._partial:
            self._write([self._partial])
            self._partial = b""

    def last_lines(self) -> tuple[str, ...]:
        """Return the newest lines, oldest first."""
        lines = [*self._last, self._partial] if self._partial else [*self._last]
        return tuple(line.decode(errors="replace").rstrip() for line in lines)

    def forget(self) -> None:
        """Drop the remembered lines, so that a new run's failure shows its own."""
        self._last.clear()

    def close(self) -> None:
        """Write what is left and close the file."""
        self.end()
        if self._file:
            self._file.close()
            self._file = None

    def _write(self, lines: Iterable[bytes]) -> None:
        data = bytearray()
        for line in lines:
            self._last.append(line)
            data += line + b"\n"
            if self._on_line:
                self._on_line(line)
        if not data:
            return
        try:
            self._append(data)
        except OSError:
            self.lost_bytes += len(data)

    def _append(self, data: bytearray) -> None:
        if self._size + len(data) > self._max_bytes and self._file:
            self._file.close()
            self._file = None
            self._rotate()
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
            self._path.chmod(0o600)
            self._size = self._file.tell()
        self._file.write(data)
        self._size += len(data)

    def _rotate(self) -> None:
        names = [self._path, *(numbered(self._path, n) for n in range(1, self._keep + 1))]
        for older, newer in zip(reversed(names), [*reversed(names)][1:], strict=False):
            if newer.exists():
                newer.replace(older)


def numbered(path: Path, number: int) -> Path:
    """Return the name of the rotated file that is `number` generations old."""
    return path.with_name(f"{path.name}.{number}")


def read_tail(path: Path, count: int) -> Iterator[bytes]:
    """Yield the last `count` lines of a log, reading rotated files only when they are needed.

    A log that does not exist has no lines.
    """
    wanted: list[bytes] = []
    name, number = path, 0
    while len(wanted) < count and name.exists():
        lines = name.read_bytes().splitlines()
        wanted = [*lines[max(0, len(lines) - (count - len(wanted))) :], *wanted]
        number += 1
        name = numbered(path, number)
    yield from wanted
