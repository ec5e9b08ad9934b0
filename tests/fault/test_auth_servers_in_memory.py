"""Users, roles and tokens on several servers of one log, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from datastore.shim.auth.simple import SimpleTokens
from datastore.shim.backends.api import Kinds
from datastore.shim.backends.memory import Log
from datastore.shim.errors import (
    AuthOldRevision,
    InvalidAuthToken,
    PermissionDenied,
    UserEmpty,
    UserNotFound,
)
from datastore.shim.mvcc.auth import ANONYMOUS, ROOT, Access, Auth, Identity, Permission
from datastore.shim.mvcc.auth_ops import (
    AuthDisable,
    AuthEnable,
    RoleAdd,
    RoleGrantPermission,
    RoleRevokePermission,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
)
from datastore.shim.mvcc.ops import Put, Range
from datastore.shim.rpc.guard import Guard
from datastore.shim.transport.api import Peer
from tests.support.simulation import Server, quiet, settled, simulate

TTL = 5.0
PERMISSION = Permission(Access.READWRITE, b"k", b"")


class Asking(NamedTuple):
    """What a guard looks at in a call."""

    metadata: dict[str, tuple[str, ...]]
    peer: Peer = Peer("somewhere", None, None)


class Site:
    """A server with what proves identity there; its clocks are those of the simulation."""

    def __init__(self, log: Log, rng: random.Random, skew: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        self.server = Server(log, rng)
        self.tokens = SimpleTokens(TTL, lambda: loop.time() + skew, loop.time)
        self.guard = Guard(self.server.replica, self.tokens, trust_certificates=False)

    @property
    def auth(self) -> Auth:
        return self.server.replica.store.auth

    def login(self, name: str) -> str:
        """Issue a token, as after the right password."""
        return self.tokens.issue(self.auth, name, self.server.replica.position.change)

    async def who(self, token: str) -> Identity:
        call: Any = Asking({"token": (token,)})
        return await self.guard.identify(call)

    async def put(self, token: str) -> None:
        call: Any = Asking({"token": (token,)})
        await self.guard.act(call, lambda who: self.server.write(Put(b"k"), caller=who))

    async def get(self, token: str) -> None:
        await self.server.reader.range(Range(b"k"), lambda: self.who(token))


SETUP = (
    UserAdd(ROOT, b"hash of root"),
    UserGrantRole(ROOT, ROOT),
    UserAdd("alice", b"hash of alice"),
    RoleAdd("r"),
    RoleGrantPermission("r", PERMISSION),
    UserGrantRole("alice", "r"),
    AuthEnable(b"a secret"),
)

Scenario = Callable[[Log, Site, Site], Awaitable[None]]


def run(scenario: Scenario, *, enabled: bool = True, skew: float = 0.0) -> None:
    async def main() -> None:
        log = Log(clock=lambda: asyncio.get_running_loop().time(), cluster_id=7)
        rng = random.Random(5)
        one, two = Site(log, rng), Site(log, rng, skew)
        for site in (one, two):
            await site.server.start()
        for write in SETUP if enabled else SETUP[:-1]:
            await one.server.write(write)
        await settled(log, one.server, two.server)
        await scenario(log, one, two)
        for site in (one, two):
            await site.server.stop()

    with quiet():
        simulate(main)


def test_a_change_is_a_commit_of_its_kind_that_every_server_learns_of() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        assert one.server.replica.position.kinds is Kinds.AUTH
        assert two.auth == one.auth
        assert (two.auth.enabled, two.auth.revision) == (True, 7)
        await two.server.write(UserDelete("alice"))
        await settled(log, one.server, two.server)
        assert "alice" not in one.auth.users

    run(scenario)


def test_a_server_that_starts_later_knows_users_and_roles() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        late = Site(log, random.Random(1))
        await late.server.start()
        assert late.auth == one.auth
        await late.put(one.login("alice"))
        await late.server.stop()

    run(scenario)


def test_writes_of_nobody_are_refused_by_a_server_that_has_not_heard_of_enabling() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        await one.server.write(SETUP[-1])
        assert not two.guard.enabled
        with pytest.raises(UserEmpty):
            await two.server.write(Put(b"k"), caller=ANONYMOUS)

    run(scenario, enabled=False)


def test_reads_of_nobody_are_refused_by_a_server_that_has_not_heard_of_enabling() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        await one.server.write(SETUP[-1])
        assert not two.guard.enabled

        async def nobody() -> Identity:
            return ANONYMOUS

        with pytest.raises(UserEmpty):
            await two.server.reader.range(Range(b"k"), nobody)

    run(scenario, enabled=False)


def test_a_token_is_good_on_every_server_at_once() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        await one.server.write(UserAdd("bob", b"hash of bob"))
        await one.server.write(UserGrantRole("bob", "r"))
        token = one.login("bob")
        assert two.server.replica.position != one.server.replica.position
        await two.put(token)
        await two.get(token)
        assert await two.who(token) == Identity("bob", one.auth.revision)

    run(scenario)


@pytest.mark.parametrize(
    "end",
    [
        (UserChangePassword("alice", b"another hash"),),
        (UserDelete("alice"),),
        (UserDelete("alice"), UserAdd("alice", b"another hash")),
        (AuthDisable(), AuthEnable(b"another secret")),
    ],
)
def test_a_token_ends_on_every_server(end: tuple[Any, ...]) -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        token = one.login("alice")
        await two.put(token)
        for write in end:
            await one.server.write(write)
        with pytest.raises(InvalidAuthToken):
            await two.get(token)
        for site in (one, two):
            with pytest.raises(InvalidAuthToken):
                await site.put(token)

    run(scenario)


def test_what_was_revoked_on_another_server_is_refused_at_the_base_of_the_write() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        token = one.login("alice")
        await two.put(token)
        who = await two.who(token)
        await one.server.write(RoleRevokePermission("r", b"k", b""))
        assert two.auth.revision < one.auth.revision
        with pytest.raises(AuthOldRevision):
            await two.server.write(Put(b"k"), caller=who)
        with pytest.raises(PermissionDenied):
            await two.put(token)
        with pytest.raises(PermissionDenied):
            await two.get(token)

    run(scenario)


def test_what_was_granted_on_another_server_counts_without_a_second_attempt() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        await one.server.write(RoleRevokePermission("r", b"k", b""))
        await settled(log, one.server, two.server)
        token = two.login("alice")
        await one.server.write(RoleGrantPermission("r", PERMISSION))
        assert two.auth.revision < one.auth.revision
        await two.put(token)

    run(scenario)


def test_changes_of_several_servers_at_once_are_all_there() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        root = Identity(ROOT, one.auth.revision)
        writes = [UserAdd(f"user {n}", b"hash") for n in range(20)]
        await asyncio.gather(
            *(
                (one, two)[number % 2].server.write(write, caller=root)
                for number, write in enumerate(writes)
            )
        )
        await settled(log, one.server, two.server)
        assert one.auth == two.auth
        assert one.auth.revision == 7 + 20
        assert {write.name for write in writes} < set(one.auth.users)

    run(scenario)


def test_who_is_no_root_any_more_changes_nothing_on_a_server_that_has_not_heard() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        await one.server.write(UserGrantRole("alice", ROOT))
        await settled(log, one.server, two.server)
        alice = await two.who(two.login("alice"))
        await one.server.write(UserDelete("alice"))
        with pytest.raises(UserNotFound):
            await two.server.write(UserDelete(ROOT), caller=alice)

    run(scenario)


def test_a_token_lives_where_it_is_used_and_dies_where_it_is_not() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        token = one.login("alice")
        for _ in range(5):
            await asyncio.sleep(TTL * 0.7)
            await one.who(token)
        with pytest.raises(InvalidAuthToken):
            await two.who(token)  # never used there, and too old
        await one.who(token)
        await asyncio.sleep(TTL * 1.1)
        with pytest.raises(InvalidAuthToken):
            await one.who(token)

    run(scenario)


@pytest.mark.parametrize("skew", [-0.9 * TTL, 0.9 * TTL])
def test_clocks_of_servers_may_differ_by_less_than_the_life_of_a_token(skew: float) -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        await two.who(one.login("alice"))

    run(scenario, skew=skew)


@pytest.mark.parametrize("skew", [-1.1 * TTL, 1.1 * TTL])
def test_a_server_takes_no_token_whose_time_is_far_from_its_own(skew: float) -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        with pytest.raises(InvalidAuthToken):
            await two.who(one.login("alice"))

    run(scenario, skew=skew)


def test_a_token_that_claims_the_future_waits_for_one_look_only() -> None:
    async def scenario(log: Log, one: Site, two: Site) -> None:
        payload, _, position = one.login("alice").partition(".")
        for claimed in (int(position) + 1, 1 << 60):
            with pytest.raises(InvalidAuthToken):
                await two.who(f"{payload}.{claimed}")

    run(scenario)
