"""A TCP proxy that treats connections badly, as networks and dying clients do.

What it does with bytes is its `Mode`, which may change at any time, for connections there are and
for those to come. It runs in a thread with a loop of its own, so that a test may block.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from typing import Self

DELAY_SECONDS = 0.05
CHUNK = 1 << 16


class Mode(Enum):
    """What becomes of bytes."""

    PASS = auto()
    DELAY = auto()  # every chunk comes late
    HALF_OPEN = auto()  # nothing goes through any more, and nobody is told
    SWALLOW = auto()  # requests arrive, their replies are lost
    ZOMBIE = auto()  # requests are held, also beyond the end of who sent them, and arrive later
    REFUSE = auto()  # connections end as soon as they begin


class Connection:
    """One client's connection and its twin to the server."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._writers: list[asyncio.StreamWriter] = []

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes both ways until both ends are closed."""
        self._writers.append(writer)
        host, port = self._proxy.server
        try:
            if self._proxy.mode is Mode.REFUSE:
                return
            there, back = await asyncio.open_connection(host, port)
            self._writers.append(back)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(reader, back))
                group.create_task(self._replies(there, writer))
        except* OSError:
            pass
        finally:
            self.cut()

    def cut(self) -> None:
        """Reset both ends."""
        for writer in self._writers:
            writer.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = {Mode.HALF_OPEN, Mode.ZOMBIE}
        while data := await _read(reader):
            await self._proxy.leave(held)
            await self._late()
            writer.write(data)
            await writer.drain()
        await self._proxy.leave(held)
        with suppress(OSError):
            writer.write_eof()

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await _read(reader):
            if self._proxy.mode is Mode.SWALLOW:
                continue
            await self._proxy.leave({Mode.HALF_OPEN})
            await self._late()
            # The other direction goes on where nobody takes replies any more: see Mode.ZOMBIE.
            with suppress(OSError):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _late(self) -> None:
        if self._proxy.mode is Mode.DELAY:
            await asyncio.sleep(DELAY_SECONDS)


class Proxy:
    """Listens on a free port of loopback and passes bytes on to `server`, as the mode says."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server = server
        self.mode = Mode.PASS
        self.port = 0
        self._connections: set[Connection] = set()
        self._changed: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def turn(self, mode: Mode) -> None:
        """Change the mode."""
        self._call(self._turn, mode)

    def cut(self) -> None:
        """Reset all connections that there are."""
        self._call(self._cut)

    async def leave(self, modes: set[Mode]) -> None:
        """Wait until the mode is none of these."""
        while self.mode in modes:
            await self._changed.wait()

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        done = threading.Event()

        def run() -> None:
            function(*arguments)
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()

    def _turn(self, mode: Mode) -> None:
        self.mode = mode
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _cut(self) -> None:
        for connection in self._connections:
            connection.cut()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed, self._stop = asyncio.Event(), asyncio.Event()
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        listener.close()
        self._turn(Mode.PASS)
        self._cut()
        while self._connections:  # noqa: ASYNC110 - their tasks end at once
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self)
        self._connections.add(connection)
        try:
            await connection.run(reader, writer)
        finally:
            self._connections.discard(connection)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(CHUNK)
    except OSError:
        return b""
