"""A workload of a user, and of a root who changes what that user is, knows and may."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import auth
from tests.support.auth import ROOT, Auth
from tests.support.auth_history import REFUSALS
from tests.support.client import Client
from tests.support.linearizability import Entry, Worker, Workload, to_group
from tests.support.observers import Wanted

ROOT_EVERY = 4
"""One client in so many is root's, the others are the user's."""
CHANGES = 0.3
"""How many of root's operations change users, roles or permissions."""
KEPT = 0.5
"""How often somebody comes back with his last token, here or on another server."""
PASSWORDS = ("first", "second")
MAY = ["", "r", "w", "rw", "rw", "rw"]
OFTEN = {
    "permit": 10,
    "grant role": 6,
    "revoke role": 2,
    "add role": 4,
    "delete role": 1,
    "add user": 4,
    "delete user": 1,
    "change password": 2,
    "show user": 2,
    "enable": 5,
    "disable": 1,
}
"""How often each change is tried, in proportion: the user may do something most of the time."""
EXPECTED = (auth.DENIED, auth.BAD_TOKEN, auth.NOBODY, auth.NOT_ENABLED, auth.FAILED)
"""What clients have to be told now and then, or the history says little."""
WANTED: list[Wanted] = [
    (b"linear/0/", b"linear/00", {"prev_kv": True}),
    (b"linear/1/0", b"", {}),
    (b"linear/2/", b"linear/20", {"progress_notify": True}),
]
"""What the user watches once that is permitted: each range is of one group."""


@dataclass
class GuardedWorkload(Workload):
    """Clients of root and of the user; logins and all changes of auth are in the history, too."""

    _tokens: dict[int, str | bytes] = field(default_factory=dict)
    """The last one that a client of each number was given."""

    def __post_init__(self) -> None:
        self._dice = random.Random(f"{self.seed}/auth")

    async def enable(self) -> None:
        """Leave a new server with a root, and with a user who may do nothing yet."""
        async with Client(self.target()) as client:
            await Auth(client).add_user(ROOT)
            await Auth(client).grant_role(ROOT, ROOT)
        for op in ("add role", "add user", "grant role", "enable"):
            await self.insist(0, {"op": op, "password": PASSWORDS[0]})

    async def run(self, stop: asyncio.Event) -> None:
        """Run all clients, then let everybody do everything, and the user read it."""
        await super().run(stop)
        await self.insist(0, {"op": "disable", "key": ""})
        for prefix in self.groups:
            await self.insist(1, {"op": "list", "key": prefix})

    @asynccontextmanager
    async def connect(self, target: str, number: int) -> AsyncIterator[Client]:
        """Connect as whoever the client of this number is, or as nobody where that fails."""
        async with Client(target) as client:
            if number in self._tokens and self._dice.random() < KEPT:
                client.metadata = (("token", self._tokens[number]),)
            else:
                is_user = bool(number % ROOT_EVERY)
                login: Entry = {"op": "log in", "client": number, "user": is_user}
                login["password"] = self._dice.choice(PASSWORDS) if is_user else ""
                await self.history.perform(client, login)
                for _, token in client.metadata:
                    self._tokens[number] = token
            yield client

    def draw(self, worker: Worker, key: str) -> Entry:
        """Let root change something now and then."""
        if worker.number % ROOT_EVERY or worker.dice.random() >= CHANGES:
            return super().draw(worker, key)
        (op,) = worker.dice.choices(list(OFTEN), list(OFTEN.values()))
        if op == "permit":
            return {"op": op, "key": to_group(key), "may": worker.dice.choice(MAY)}
        return {"op": op, "key": "", "password": worker.dice.choice(PASSWORDS)}

    def check(self, checker: Path, directory: Path) -> None:
        """Fail unless the history is linearizable, and clients were refused for every reason."""
        refusals = Counter(entry.get("refused") for entry in self.history.entries)
        missing = [text for refusal in EXPECTED if not refusals[text := REFUSALS[refusal]]]
        assert not missing, f"this was not put to the test: {missing}"
        self.history.check(checker, directory)
