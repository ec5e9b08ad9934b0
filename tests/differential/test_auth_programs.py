"""Random programs of several users on a real etcd and on the shim: who may do what is equal."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import grpc.aio
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from datastore.etcdpb import rpc_pb2 as pb
from tests.differential.test_programs import agree, level
from tests.support.auth_programs import FORGER, NOBODY, PASSWORDS, PRELUDE, ROOT, Step, steps
from tests.support.client import Client
from tests.support.differential import Side, same_told, side
from tests.support.pair import Pair
from tests.support.programs import placed
from tests.support.soaking import for_long

FORGED = "bm90IGEgdG9rZW4.7"


async def authenticate(client: Client, name: str) -> str | None:
    """Return a token of a user, if there is one to be had."""
    client.metadata = ()
    for password in PASSWORDS:
        request = pb.AuthenticateRequest(name=name, password=password)
        with suppress(grpc.aio.AioRpcError):
            return (await client.call("Auth/Authenticate", request, pb.AuthenticateResponse)).token
    return None


class Cast:
    """The users of one server, each with the token that it was given last."""

    def __init__(self, one: Side) -> None:
        self.side = one
        self._tokens = {FORGER: FORGED}

    async def enter(self, actor: str, fresh: bool) -> None:
        """Speak as this one from now on."""
        if actor not in {NOBODY, FORGER} and (fresh or actor not in self._tokens):
            token = await authenticate(self.side.client, actor)
            if token is not None:
                self._tokens[actor] = token
        token = self._tokens.get(actor)
        self.side.client.metadata = () if token is None else (("token", token),)


async def unlock(client: Client) -> None:
    """Turn auth off, and forget all users and roles."""
    token = await authenticate(client, ROOT)
    client.metadata = () if token is None else (("token", token),)
    await client.call("Auth/AuthDisable", pb.AuthDisableRequest(), pb.AuthDisableResponse)
    client.metadata = ()
    users = await client.call("Auth/UserList", pb.AuthUserListRequest(), pb.AuthUserListResponse)
    for name in users.users:
        gone = pb.AuthUserDeleteRequest(name=name)
        await client.call("Auth/UserDelete", gone, pb.AuthUserDeleteResponse)
    roles = await client.call("Auth/RoleList", pb.AuthRoleListRequest(), pb.AuthRoleListResponse)
    for role in roles.roles:
        last = pb.AuthRoleDeleteRequest(role=role)
        await client.call("Auth/RoleDelete", last, pb.AuthRoleDeleteResponse)


async def compare(ours: Client, etcds: Client, program: list[Step]) -> None:
    """Run a program on both and compare whatever comes back."""
    for client in (ours, etcds):
        await unlock(client)
    start = await level((ours, etcds))
    async with side(ours) as mine, side(etcds) as other:
        casts = Cast(mine), Cast(other)
        for actor, drawn, fresh in (*PRELUDE, *program):
            request: Message = placed(drawn, start)
            for cast in casts:
                await cast.enter(actor, fresh)
            described = f"{type(request).__name__}: {str(drawn).strip()}"
            note(f"{actor or 'nobody'}{' anew' if fresh else ''} asks {described}")
            await agree(mine, other, request)
        for client in (ours, etcds):
            await unlock(client)
        streams = [await one.finish(start) for one in (mine, other)]
    for said, etcds_said in zip(*streams, strict=True):
        assert same_told(said, etcds_said), f"events: {said}\nof etcd: {etcds_said}"


def run(pair: Pair, examples: int, length: int, phases: Sequence[Phase]) -> None:
    @settings(
        phases=phases,
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(steps, min_size=length // 3, max_size=length))
    def programs(program: list[Step]) -> None:
        pair.run(compare, program)

    programs()


def test_short_programs_of_several_users_have_the_same_answers(pair):
    run(pair, examples=30, length=25, phases=[Phase.generate])


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_long_programs_of_several_users_have_the_same_answers(pair):
    phases = [Phase.generate, Phase.shrink]
    for_long(lambda: run(pair, examples=50, length=50, phases=phases))
