"""A server on a shared log that has not heard yet what another one changed of auth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from datastore.shim.backends.memory import Log
from datastore.shim.server import Shim
from tests.support.auth import BAD_TOKEN, NOBODY, READWRITE, Auth
from tests.support.client import Client, refused
from tests.support.in_process import Slow, serving

T = TypeVar("T")


class Pair(NamedTuple):
    """Clients of two servers, of which the second one hears of nothing after `cut_off`."""

    one: Client
    two: Client
    late: Shim
    slow: Slow

    async def cut_off(self) -> None:
        """Let the second server hear of all that was, and of nothing more."""
        await self.two.get(b"k")
        self.slow.open.clear()
        self.slow.waiting.clear()
        await asyncio.to_thread(self.slow.waiting.wait, 10)

    async def ask(self, answer: Awaitable[T]) -> T:
        """Let the second server hear again, once it has taken a call."""
        begun = self.late.desk.started.total()
        asked = asyncio.ensure_future(answer)
        while self.late.desk.started.total() == begun:  # noqa: ASYNC110 - it is in this process
            await asyncio.sleep(0.001)
        self.slow.open.set()
        return await asked

    def show(self, token: str) -> None:
        """Let both clients show a token."""
        self.one.metadata = self.two.metadata = (("token", token),)


@asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[Pair]:
    log, slow = Log(), Slow()
    async with (
        serving(directory, log=log, name="one") as (_, one),
        serving(directory, slow, log, name="two") as (late, two),
    ):
        try:
            await Auth(one).user("alice", (READWRITE, b"k", b""))
            yield Pair(one, two, late, slow)
        finally:
            slow.open.set()


async def test_a_write_with_a_token_is_done_where_auth_was_off_until_now(tmp_path: Path) -> None:
    async with pair(tmp_path) as servers:
        await servers.cut_off()
        await Auth(servers.one).enable_with_root()
        servers.two.metadata = (("token", await Auth(servers.one).login("alice")),)
        await servers.ask(servers.two.put(b"k", b"v"))
        assert (await servers.two.get(b"k")).kvs[0].value == b"v"


async def test_a_write_of_nobody_is_refused_where_auth_was_off_until_now(tmp_path: Path) -> None:
    async with pair(tmp_path) as servers:
        await servers.cut_off()
        await Auth(servers.one).enable_with_root()
        with refused(NOBODY):
            await servers.ask(servers.two.put(b"k", b"v"))


async def test_a_token_of_root_that_has_ended_changes_nothing(tmp_path: Path) -> None:
    async with pair(tmp_path) as servers:
        servers.show(await Auth(servers.one).enable_with_root())
        await servers.cut_off()
        await Auth(servers.one).disable()
        await Auth(servers.one).enable()
        with refused(BAD_TOKEN):
            await servers.ask(Auth(servers.two).add_role("r"))


async def test_users_are_shown_by_who_asks_now(tmp_path: Path) -> None:
    async with pair(tmp_path) as servers:
        await servers.cut_off()
        servers.show(await Auth(servers.one).enable_with_root())
        assert await servers.ask(Auth(servers.two).users()) == ["alice", "root"]


async def test_nobody_is_asked_any_more_where_auth_was_on_until_now(tmp_path: Path) -> None:
    async with pair(tmp_path) as servers:
        ended = await Auth(servers.one).enable_with_root()
        servers.show(ended)
        await Auth(servers.one).disable()
        await Auth(servers.one).enable()
        servers.show(await Auth(servers.one).login("root"))
        await servers.cut_off()
        await Auth(servers.one).disable()
        servers.show(ended)
        await servers.ask(servers.two.put(b"k", b"v"))


async def test_a_lease_is_anybodys_to_revoke_where_auth_was_on_until_now(tmp_path: Path) -> None:
    async with pair(tmp_path) as servers:
        await servers.one.grant(60, 7)
        servers.show(await Auth(servers.one).enable_with_root())
        await servers.cut_off()
        await Auth(servers.one).disable()
        servers.two.metadata = ()
        await servers.ask(servers.two.revoke(7))
