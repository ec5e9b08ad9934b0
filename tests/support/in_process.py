"""Whole servers in this process, on one log in memory, for real clients."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from datastore.shim.backends.memory import Fault, Faults, Log, MemoryBackend
from datastore.shim.options import ServeOptions
from datastore.shim.server import Shim
from tests.support.client import Client


class Slow(Faults):
    """Looks at the log wait until they are let go; while `away`, everything is refused."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()
        self.away = False

    def read(self, operation: str) -> Fault | None:
        if operation == "tail" and not self.open.is_set():
            self.waiting.set()
            self.open.wait(30)
        return Fault.UNAVAILABLE if self.away else None


@asynccontextmanager
async def serving(
    directory: Path, faults: Faults | None = None, log: Log | None = None, **changes: object
) -> AsyncIterator[tuple[Shim, Client]]:
    socket = directory / f"{changes.get('name', 'grpc')}.sock"
    values = {"datastore": "", "listen_client_urls": (f"unix://{socket}",), **changes}
    options = ServeOptions(**values)  # type: ignore[arg-type] # names and types are the fields'
    backend = MemoryBackend(log, faults, shared=True, inline=False)
    async with Shim(options, backend) as shim, Client(f"unix:{socket}") as client:
        yield shim, client
