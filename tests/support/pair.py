"""Two servers that get the same requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.client import Client
from tests.support.running import Server


class Pair:
    """Both servers, each with a connection, on one event loop."""

    def __init__(self, ours: Server, etcds: Server) -> None:
        self._servers = ours, etcds
        self._runner = asyncio.Runner()
        self._clients = self._runner.run(self._connect())

    async def _connect(self) -> tuple[Client, Client]:
        ours, etcds = (Client(server.target) for server in self._servers)
        return ours, etcds

    def run(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Run `work` with both connections, ours first."""
        self._runner.run(self._work(work, *arguments))

    async def _work(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        await work(*self._clients, *arguments)

    def close(self) -> None:
        """Hang up."""
        for client in self._clients:
            self._runner.run(client.channel.close(None))
        self._runner.close()
