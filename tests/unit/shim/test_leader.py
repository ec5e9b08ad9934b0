"""Two servers of one log: who leads, and what is refused about members."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.backends.memory import Log, MemoryBackend
from datastore.shim.options import ServeOptions
from datastore.shim.server import Shim
from tests.support.client import Client, Code, Refusal, refused

NOT_LEADER = Refusal(Code.FAILED_PRECONDITION, "etcdserver: not leader")
STAYS = Refusal(Code.UNKNOWN, "etcdserver: request timed out, leader transfer took too long")
TOO_FEW = Refusal(
    Code.UNKNOWN, "etcdserver: re-configuration failed due to not enough started members"
)
NO_LEARNER = Refusal(Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member")


async def leader_of(client: Client) -> tuple[int, int]:
    answer = await client.call("Maintenance/Status", b"", pb.StatusResponse)
    return answer.leader, answer.header.member_id


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Client, Client]]:
    """Run two servers that know each other: the one that leads, and the other."""
    log = Log()
    async with AsyncExitStack() as stack:
        clients = []
        for name in ("one", "two"):
            socket = tmp_path / f"{name}.sock"
            options = ServeOptions(
                datastore="", name=name, listen_client_urls=(f"unix://{socket}",)
            )
            backend = MemoryBackend(log, shared=True, inline=False)
            await stack.enter_async_context(Shim(options, backend))
            clients.append(await stack.enter_async_context(Client(f"unix:{socket}")))
        for client in clients:  # linearizable: a heartbeat
            request = pb.MemberListRequest(linearizable=True)
            await client.call("Cluster/MemberList", request, pb.MemberListResponse)
        await clients[0].call("Cluster/MemberList", request, pb.MemberListResponse)
        leads = [leader == member for leader, member in [await leader_of(c) for c in clients]]
        assert sorted(leads) == [False, True]
        yield clients[leads.index(True)], clients[leads.index(False)]


async def test_only_the_leader_is_asked_to_move_and_stays(pair: tuple[Client, Client]) -> None:
    leader, other = pair
    _, other_id = await leader_of(other)
    request = pb.MoveLeaderRequest(targetID=other_id)
    with refused(NOT_LEADER):
        await other.call("Maintenance/MoveLeader", request, pb.MoveLeaderResponse)
    with refused(STAYS):
        await leader.call("Maintenance/MoveLeader", request, pb.MoveLeaderResponse)


async def test_a_server_that_lives_is_neither_removed_nor_promoted(
    pair: tuple[Client, Client],
) -> None:
    leader, other = pair
    _, other_id = await leader_of(other)
    with refused(TOO_FEW):
        removal = pb.MemberRemoveRequest(ID=other_id)
        await leader.call("Cluster/MemberRemove", removal, pb.MemberRemoveResponse)
    with refused(NO_LEARNER):
        promotion = pb.MemberPromoteRequest(ID=other_id)
        await leader.call("Cluster/MemberPromote", promotion, pb.MemberPromoteResponse)
    with refused(TOO_FEW):
        addition = pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"])
        await leader.call("Cluster/MemberAdd", addition, pb.MemberAddResponse)


async def test_a_downgrade_is_remembered_by_the_server_that_was_asked(
    pair: tuple[Client, Client],
) -> None:
    leader, other = pair
    request = pb.DowngradeRequest(action=pb.DowngradeRequest.ENABLE, version="3.6")
    await leader.call("Maintenance/Downgrade", request, pb.DowngradeResponse)
    for client, target in ((leader, "3.6.0"), (other, "")):
        answer = await client.call("Maintenance/Status", b"", pb.StatusResponse)
        assert answer.downgradeInfo.targetVersion == target
