"""Processes that an earlier byre left behind: found by their marker, ended through a pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from supervisor.child import MARKER, signal_pidfd

PROC = Path("/proc")


class Orphan:
    """A process with our marker, held by a pidfd so that its pid cannot change hands."""

    def __init__(self, pid: int, component: str, pidfd: int) -> None:
        self.pid = pid
        self.component = component
        self.pidfd = pidfd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.pidfd)

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    async def end(self, grace_seconds: float) -> None:
        """Ask it to end, kill it after the grace period, and wait until it is gone."""
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.pidfd, gone.set)
        try:
            signal_pidfd(self.pidfd, signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_seconds):
                    await gone.wait()
            except TimeoutError:
                signal_pidfd(self.pidfd, signal.SIGKILL)
                await gone.wait()
        finally:
            loop.remove_reader(self.pidfd)


def find_orphans(owner: str, pid_dir: Path) -> list[Orphan]:
    """Return every living process whose environment names `owner`, each with a pidfd.

    The pid files are looked at first, then all processes whose environment this user may read.
    """
    found = (_open(pid, owner) for pid in dict.fromkeys([*_pid_files(pid_dir), *_all_pids()]))
    return [orphan for orphan in found if orphan]


async def end_orphans(
    orphans: Iterable[Orphan],
    order: Sequence[str],
    grace_seconds: float,
    on_end: Callable[[Orphan], None] = lambda _orphan: None,
) -> None:
    """End orphans in the reverse of `order`, the way they would have been stopped.

    Args:
        orphans: What `find_orphans` found; their pidfds are closed here.
        order: Component names in the order of their start; a store comes first, because
            kube-apiserver takes 20 s to end when its store is gone.
        grace_seconds: From SIGTERM to SIGKILL.
        on_end: Is told of each one before it is touched.
    """
    ranks = {name: rank for rank, name in enumerate(order)}
    groups: dict[int, list[Orphan]] = {}
    with contextlib.ExitStack() as stack:
        for orphan in orphans:
            stack.enter_context(orphan)
            groups.setdefault(ranks.get(orphan.component, len(order)), []).append(orphan)
        for rank in sorted(groups, reverse=True):
            async with asyncio.TaskGroup() as tasks:
                for orphan in groups[rank]:
                    on_end(orphan)
                    tasks.create_task(orphan.end(grace_seconds))


def _open(pid: int, owner: str) -> Orphan | None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    component = _component(pid, owner)
    # Asked last: if it lives now, the environment read above was its own.
    if component is not None:
        orphan = Orphan(pid, component, pidfd)
        if not orphan.is_gone:
            return orphan
    os.close(pidfd)
    return None


def _component(pid: int, owner: str) -> str | None:
    prefix = f"{MARKER}={owner}:".encode()
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode(errors="replace")
    return None


def _pid_files(pid_dir: Path) -> list[int]:
    pids = []
    for path in sorted(pid_dir.glob("*.pid")):
        # A crash may leave an empty or half-written file: the search by marker makes up for it.
        with contextlib.suppress(OSError, ValueError):
            pids.append(int(path.read_text()))
    return [pid for pid in pids if pid > 0]


def _all_pids() -> list[int]:
    own = os.getpid()
    return [
        int(name.name) for name in PROC.iterdir() if name.name.isdigit() and int(name.name) != own
    ]
