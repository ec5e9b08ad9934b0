"""The JSON API on its socket, and how people see it."""

from __future__ import annotations

import asyncio
import io
import stat
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from supervisor.console import status_summary, status_table
from supervisor.errors import NotRunning
from supervisor.place import socket_path
from supervisor.status import serve_status
from supervisor.statusclient import ask_status


def process(**changes: Any) -> dict[str, Any]:
    return {
        "name": "etcd",
        "state": "ready",
        "pid": 12,
        "uptime_seconds": 3671.4,
        "restarts": 2,
        "crash_loop": False,
        "reason": "",
        "last_exit": {"status": 1, "reason": "exit status 1", "ran_seconds": 1, "lines": []},
        **changes,
    }


def shown(*processes: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(status_table({"processes": processes}))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


async def test_the_socket_answers_and_is_private(tmp_path: Path) -> None:
    path = socket_path(tmp_path)
    async with serve_status(path, lambda: {"ready": True}):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await asyncio.to_thread(ask_status, tmp_path) == {"ready": True}
    with pytest.raises(NotRunning):
        ask_status(tmp_path)


async def test_a_socket_left_by_a_killed_byre_is_replaced(tmp_path: Path) -> None:
    socket_path(tmp_path).write_text("")
    async with serve_status(socket_path(tmp_path), lambda: {"ready": False}):
        assert await asyncio.to_thread(ask_status, tmp_path) == {"ready": False}


def test_nobody_behind_the_socket_is_advice(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="start one with `byre controller`"):
        ask_status(tmp_path)


def test_a_process_in_the_table() -> None:
    assert shown(process())[1].split() == [
        "etcd", "ready", "12", "1:01:11", "2", "exit", "status", "1"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"state": "backoff", "crash_loop": True}, "crash loop"),
        ({"state": "backoff"}, "backoff"),
        ({"reason": "no answer"}, "not answering"),
        ({"state": "stopped", "pid": None, "uptime_seconds": None}, "stopped"),
    ],
)
def test_trouble_has_a_name_in_the_table(changes: dict[str, Any], state: str) -> None:
    assert state in shown(process(**changes))[1]


def test_the_summary_tells_why_the_datastore_does_not_answer() -> None:
    store = {"kind": "sqlite", "endpoint": ["unix:///a"], "ready": False, "reason": "disk full"}
    status = {"version": "1", "pid": 1, "data_dir": "/d", "api": "https://a", "datastore": store}
    assert status_summary(status)[-1].endswith("disk full")
