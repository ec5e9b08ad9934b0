"""What must be right before anything is started; every problem is found in one go."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from datastore.errors import UnusablePath
from datastore.paths import PASSAGE, PRIVATE, Paths, make_directory
from supervisor.plan import Listener

LOCK = "byre.lock"


class DataDirLock:
    """Holds a data directory for as long as the process lives; the kernel lets go at its end."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / LOCK
        self._fd: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def take(self) -> str | None:
        """Take the lock; return who holds it, or None when it is ours now."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            return f"pid {holder}" if holder else "another process"
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        return None

    def release(self) -> None:
        """Let go; harmless when nothing is held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def check_directories(paths: Paths) -> list[str]:
    """Make the directories that byre needs; return what is wrong with them."""
    problems = []
    for directory in (paths.data_dir, paths.run_dir):
        try:
            # The datastore's user may be at work behind a passage, for a byre that runs.
            is_passage = directory.is_dir() and directory.stat().st_mode & 0o777 == PASSAGE
            make_directory(directory, PASSAGE if is_passage else PRIVATE)
        except UnusablePath as error:
            problems.append(str(error))
    return problems


def check_ports(listeners: Iterable[Listener]) -> list[str]:
    """Return a problem for every address that cannot be bound, with who holds it."""
    problems = []
    for listener in listeners:
        try:
            _bind(listener.host, listener.port)
        except OSError as error:
            where = f"{listener.host or '*'}:{listener.port}"
            reason = (error.strerror or str(error)).lower()
            holder = find_holder(listener.port)
            by = f" by {holder}" if holder else ""
            problems.append(
                f"{listener.component} cannot listen on {where}: {reason}{by}; end that "
                "process or choose another port"
            )
    return problems


def find_holder(port: int) -> str | None:
    """Return the process that listens on a TCP port, as far as this user may see it."""
    inodes = {
        fields[9]
        for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
        if table.exists()
        for fields in (line.split() for line in table.read_text().splitlines()[1:])
        if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port
    }
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir() if sockets else ():
        if process.name.isdigit() and _holds(process, sockets):
            return f"{_command(process)} (pid {process.name})"
    return None


_LISTEN = "0A"


def _bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        # A bind succeeds beside a listener that set SO_REUSEADDR and has not listened yet.
        probe.listen(1)


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        return any(str(fd.readlink()) in sockets for fd in (process / "fd").iterdir())
    except OSError:
        return False


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"
