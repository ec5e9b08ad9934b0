"""The edge to the system, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from datastore.launch import ProcessSpec
from supervisor.backoff import BackoffPolicy
from supervisor.child import Child, SystemSpawner, run
from supervisor.lifecycle import State
from supervisor.orphans import end_orphans, find_orphans
from supervisor.output import ComponentLog

ACTOR = Path(__file__).with_name("actor.py")
SECONDS = 30


def argv(mode: str) -> list[str]:
    return [sys.executable, str(ACTOR), mode]


def spawn(mode: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start a process that byre does not know, and wait until it is up."""
    process = subprocess.Popen(
        argv(mode), env={**os.environ, **environment}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def pid_files(directory: Path) -> list[Path]:
    return list(directory.glob("*.pid"))


class Stage:
    """One real child and means to wait for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.child: Child | None = None
        self._news = asyncio.Event()

    def start(self, mode: str, grace: float = 10, name: str = "actor") -> Child:
        self.child = Child(
            ProcessSpec(name, argv(mode), grace_seconds=grace),
            ComponentLog(self.directory / f"{name}.log", on_line=lambda line: self._tell()),
            spawner=SystemSpawner(str(self.directory), self.directory, os.environ),
            clock=asyncio.get_running_loop(),
            fraction=lambda: 0.5,
            policy=BackoffPolicy(first_seconds=0.01, crash_loop_runs=3),
            on_change=lambda child, event: self._tell(),
        )
        self.child.start()
        return self.child

    async def until(self, is_met: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not is_met():
                await self._news.wait()
                self._news.clear()

    async def up(self) -> Child:
        child = self.child
        assert child is not None
        await self.until(lambda: "up" in child.log.last_lines())
        return child

    async def stop(self) -> None:
        child = self.child
        if child is not None and child.state is not State.STOPPED:
            child.stop()
            child.grace_elapsed()
            await self.until(lambda: child.state is State.STOPPED)
        if child is not None:
            child.log.close()

    def _tell(self) -> None:
        self._news.set()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    yield made
    await made.stop()
    assert not find_orphans(str(tmp_path), tmp_path)
    assert not pid_files(tmp_path)


async def test_a_child_has_a_pid_file_while_it_runs(stage: Stage) -> None:
    stage.start("serve")
    child = await stage.up()
    assert (stage.directory / "actor.pid").read_text() == f"{child.pid}\n"


async def test_a_child_ends_at_sigterm(stage: Stage) -> None:
    stage.start("serve")
    child = await stage.up()
    child.stop()
    await stage.until(lambda: child.state is State.STOPPED)
    assert child.last_exit is not None
    assert child.last_exit.reason == "killed by SIGTERM"


async def test_a_child_that_ignores_sigterm_is_killed(stage: Stage) -> None:
    stage.start("ignore-term", grace=0.05)
    child = await stage.up()
    child.stop()
    await stage.until(lambda: child.state is State.STOPPED)
    assert child.last_exit is not None
    assert child.last_exit.status == -signal.SIGKILL


async def test_a_crash_loop_keeps_the_last_words(stage: Stage) -> None:
    child = stage.start("crash")
    await stage.until(lambda: child.is_crash_loop)
    assert child.last_exit is not None
    assert child.last_exit.reason == "exit status 3"
    assert child.last_exit.lines == ("cannot open the database",)
    assert child.restarts >= 2


async def test_grandchildren_go_with_the_child_and_cannot_hide_its_end(stage: Stage) -> None:
    stage.start("grandchild")
    child = await stage.up()
    orphans = find_orphans(str(stage.directory), stage.directory)
    assert len(orphans) == 2
    child.stop()
    await stage.until(lambda: child.state is State.STOPPED)
    async with asyncio.timeout(SECONDS):
        for orphan in orphans:
            with orphan:
                gone = asyncio.Event()
                asyncio.get_running_loop().add_reader(orphan.pidfd, gone.set)
                await gone.wait()
                asyncio.get_running_loop().remove_reader(orphan.pidfd)


async def test_a_flood_of_output_does_not_hinder_a_stop(stage: Stage) -> None:
    child = stage.start("flood")
    await stage.until(lambda: child.log.last_lines()[-1:] == ("x" * 999,))
    child.stop()
    await stage.until(lambda: child.state is State.STOPPED)


async def test_a_child_sees_only_what_it_is_given(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYRE_PASSWORD", "hunter2")
    stage.start("environment")
    child = await stage.up()
    names = {line.partition("=")[0] for line in child.log.last_lines()} - {"up", "LC_CTYPE"}
    assert names <= {"PATH", "HOME", "TZ", "BYRE_MANAGED"}


async def test_orphans_of_a_killed_byre_are_found_and_ended(tmp_path: Path) -> None:
    with spawn("ignore-term", BYRE_MANAGED=f"{tmp_path}:etcd") as orphan:
        found = find_orphans(str(tmp_path), tmp_path)
        assert [(one.pid, one.component) for one in found] == [(orphan.pid, "etcd")]
        await end_orphans(found, ["etcd"], 0.05)
        assert orphan.wait() == -signal.SIGKILL


async def test_somebody_elses_process_is_not_touched(tmp_path: Path) -> None:
    with spawn("serve") as other:
        # A pid file that names a recycled pid, an empty one and a broken one.
        (tmp_path / "etcd.pid").write_text(f"{other.pid}\n")
        (tmp_path / "a.pid").write_text("")
        (tmp_path / "b.pid").write_text("-1")
        assert find_orphans(str(tmp_path), tmp_path) == []
        assert other.poll() is None
        other.kill()


async def test_a_store_is_ended_after_what_uses_it(tmp_path: Path) -> None:
    names = ("kube-apiserver", "etcd", "unknown")
    processes = [spawn("serve", BYRE_MANAGED=f"{tmp_path}:{name}") for name in names]
    ended: list[str] = []
    await end_orphans(
        find_orphans(str(tmp_path), tmp_path),
        ["etcd", "kube-apiserver"],
        SECONDS,
        lambda orphan: ended.append(orphan.component),
    )
    assert ended == ["unknown", "kube-apiserver", "etcd"]
    for process in processes:
        with process:
            assert process.wait() == -signal.SIGTERM


def test_a_short_command_returns_its_lines() -> None:
    finished = run(
        [sys.executable, "-c", "print('a'); print('b', end=''); raise SystemExit(4)"],
        environment=os.environ,
        timeout_seconds=SECONDS,
    )
    assert finished == (4, ("a", "b"))


def test_a_short_command_that_takes_long_is_killed_with_its_group() -> None:
    with pytest.raises(TimeoutError):
        run(argv("ignore-term"), environment=os.environ, timeout_seconds=0.5)


def test_a_short_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run([str(tmp_path / "none")], environment={}, timeout_seconds=1)
