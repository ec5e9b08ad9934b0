"""A workload of a user whose permissions come and go, and of a root who gives and takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.auth import ROOT, SECRET, Auth
from tests.support.client import Client
from tests.support.linearizability import (
    OPERATION_SECONDS,
    USER,
    Entry,
    Worker,
    Workload,
    to_group,
)
from tests.support.observers import Wanted

ROOT_EVERY = 4
"""One client in so many is root's, the others are the user's."""
PERMITS = 0.2
"""How many of root's operations change a permission."""
MAY = ["", "r", "w", "rw", "rw", "rw"]
WANTED: list[Wanted] = [
    (b"linear/0/", b"linear/00", {"prev_kv": True}),
    (b"linear/1/0", b"", {}),
    (b"linear/2/", b"linear/20", {"progress_notify": True}),
]
"""What the user watches once that is permitted: each range is of one group."""


async def enable_auth(target: str) -> None:
    """Leave a new server with a root, and with a user who may do nothing yet."""
    async with Client(target) as client:
        auth = Auth(client)
        await auth.user(USER)
        await auth.enable_with_root()


@asynccontextmanager
async def signed_in(target: str, name: str) -> AsyncIterator[Client]:
    """Connect as somebody, once the server is there."""
    async with Client(target) as client:
        request = pb.AuthenticateRequest(name=name, password=SECRET)
        answer = await client.call(
            "Auth/Authenticate",
            request,
            pb.AuthenticateResponse,
            timeout=OPERATION_SECONDS,
            wait_for_ready=True,
        )
        client.metadata = (("token", answer.token),)
        yield client


class GuardedWorkload(Workload):
    """Clients of root and of the user; all changes of permissions are in the history, too."""

    async def run(self, stop: asyncio.Event) -> None:
        """Run all clients, then permit everything, and let the user read it."""
        await super().run(stop)
        for prefix in self.groups:
            await self.insist(0, {"op": "permit", "key": prefix, "may": "rw"})
            await self.insist(1, {"op": "list", "key": prefix, "user": True})

    def connect(self, target: str, number: int) -> AbstractAsyncContextManager[Client]:
        """Connect as whoever the client of this number is."""
        return signed_in(target, USER if number % ROOT_EVERY else ROOT)

    def draw(self, worker: Worker, key: str) -> Entry:
        """Let root give and take permissions now and then."""
        if worker.number % ROOT_EVERY:
            return super().draw(worker, key) | {"user": True}
        if worker.dice.random() < PERMITS:
            return {"op": "permit", "key": to_group(key), "may": worker.dice.choice(MAY)}
        return super().draw(worker, key)

    def check(self, checker: Path, directory: Path) -> None:
        """Fail unless the history is linearizable, and the user was permitted and denied much."""
        answers = [
            entry for entry in self.history.entries if "user" in entry and "return" in entry
        ]
        denied = sum("denied" in entry for entry in answers)
        assert 20 < denied < len(answers) - 20, "the permissions were not put to the test"
        self.history.check(checker, directory)
