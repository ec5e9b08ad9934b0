"""What byre tells about itself: a JSON API on a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from supervisor.lifecycle import State
from supervisor.runtime import Runtime, Supervised

Status = Mapping[str, Any]
"""What ``GET /status`` answers: plain JSON, documented in supervisor/README.md."""


def describe(runtime: Runtime, about: Mapping[str, Any], now: float) -> Status:
    """Return the state of everything as JSON values.

    Args:
        runtime: The processes.
        about: What does not change while byre runs: version, pid, directories.
        now: The clock that the processes' start times were taken from.
    """
    processes = [_process(supervised, now) for supervised in runtime.processes]
    is_ready = not runtime.store_reason and all(
        process["state"] == State.READY and not process["reason"] for process in processes
    )
    return {
        **about,
        "ready": is_ready,
        "api": runtime.plan.api_url,
        "datastore": {
            "kind": runtime.plan.datastore.kind,
            "endpoint": list(runtime.plan.datastore.endpoint.urls),
            "ready": not runtime.store_reason,
            "reason": runtime.store_reason,
        },
        "processes": processes,
    }


def _process(supervised: Supervised, now: float) -> dict[str, Any]:
    child = supervised.child
    end = child.last_exit
    runs = child.pid is not None and child.started_at is not None
    return {
        "name": child.spec.name,
        "state": child.state,
        "pid": child.pid,
        "uptime_seconds": round(now - (child.started_at or 0), 1) if runs else None,
        "restarts": child.restarts,
        "crash_loop": child.is_crash_loop,
        "reason": supervised.reason,
        "last_exit": end
        and {
            "status": end.status,
            "reason": end.reason,
            "ran_seconds": round(end.ran_seconds, 1),
            "lines": list(end.lines),
        },
    }


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals are the controller's business.
        yield


@contextlib.asynccontextmanager
async def serve_status(path: Path, tell: Callable[[], Status]) -> AsyncIterator[None]:
    """Answer ``GET /status`` on a unix socket that only this user may open."""

    async def status(_request: Request) -> JSONResponse:
        return JSONResponse(tell())

    app = Starlette(routes=[Route("/status", status)])
    server = _Server(
        uvicorn.Config(app, log_config=None, lifespan="off", ws="none", access_log=False)
    )
    with contextlib.closing(_listen(path)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await task
            path.unlink(missing_ok=True)  # noqa: ASYNC240 (a socket's name, at the very end)


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(16)
    listener.settimeout(0)
    return listener
