"""Cluster: the list of members, and what changes are refused (contract 2.9, 2.12; trap T45)."""

from __future__ import annotations

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, Code, Refusal, refused

BAD_URLS = Refusal(Code.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
NO_MEMBER = Refusal(Code.NOT_FOUND, "etcdserver: member not found")
NO_LEARNER = Refusal(Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member")
# etcd does not map this one to the code of its table.
TOO_FEW = Refusal(
    Code.UNKNOWN, "etcdserver: re-configuration failed due to not enough started members"
)


async def members(client: Client, *, linearizable: bool = True) -> pb.MemberListResponse:
    request = pb.MemberListRequest(linearizable=linearizable)
    return await client.call("Cluster/MemberList", request, pb.MemberListResponse)


@pytest.mark.parametrize("linearizable", [True, False])
async def test_the_member_that_answers_is_listed(client, linearizable):
    answer = await members(client, linearizable=linearizable)
    (member,) = answer.members
    assert answer.header.member_id == member.ID
    assert not member.isLearner


async def test_a_member_has_a_name_and_urls_that_clients_can_dial(client):
    """T45: `etcdctl --cluster` and clients that sync dial them."""
    (member,) = (await members(client)).members
    assert member.name
    assert member.clientURLs
    async with Client(member.clientURLs[0].removeprefix("http://")) as other:
        assert (await members(other)).members[0].ID == member.ID


async def test_the_header_of_a_member_list_has_no_revision(client):
    """T8."""
    header = (await members(client)).header
    assert header.revision == 0
    assert header.cluster_id


async def my_id(client: Client) -> int:
    return (await members(client)).header.member_id


@pytest.mark.parametrize(
    "urls",
    [
        [],
        ["x"],
        ["127.0.0.1:1"],
        ["http://127.0.0.1"],
        ["http://127.0.0.1:1/"],
        ["http://127.0.0.1:1/x"],
        ["ftp://127.0.0.1:1"],
        ["http://127.0.0.1:1", "http://127.0.0.1:port"],
    ],
)
@pytest.mark.parametrize("learner", [False, True])
async def test_a_member_with_wrong_urls_is_not_added(client, urls, learner):
    request = pb.MemberAddRequest(peerURLs=urls, isLearner=learner)
    with refused(BAD_URLS):
        await client.call("Cluster/MemberAdd", request, pb.MemberAddResponse)


async def test_the_only_member_is_not_removed(client):
    request = pb.MemberRemoveRequest(ID=await my_id(client))
    with refused(TOO_FEW):
        await client.call("Cluster/MemberRemove", request, pb.MemberRemoveResponse)


async def test_a_full_member_is_not_promoted(client):
    request = pb.MemberPromoteRequest(ID=await my_id(client))
    with refused(NO_LEARNER):
        await client.call("Cluster/MemberPromote", request, pb.MemberPromoteResponse)


@pytest.mark.parametrize("member", [0, 1])
async def test_a_member_that_nobody_knows_cannot_be_changed(client, member):
    with refused(NO_MEMBER):
        removal = pb.MemberRemoveRequest(ID=member)
        await client.call("Cluster/MemberRemove", removal, pb.MemberRemoveResponse)
    with refused(NO_MEMBER):
        promotion = pb.MemberPromoteRequest(ID=member)
        await client.call("Cluster/MemberPromote", promotion, pb.MemberPromoteResponse)
    with refused(NO_MEMBER):
        update = pb.MemberUpdateRequest(ID=member, peerURLs=["http://127.0.0.1:1"])
        await client.call("Cluster/MemberUpdate", update, pb.MemberUpdateResponse)


async def test_a_learner_can_be_added(fresh):
    """Servers on SQL are added by starting them."""
    async with Client(fresh.target) as client:
        request = pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"], isLearner=True)
        answer = await client.call("Cluster/MemberAdd", request, pb.MemberAddResponse)
        assert len(answer.members) == 2


async def test_peer_urls_can_be_changed(fresh):
    """Servers on SQL have none."""
    async with Client(fresh.target) as client:
        member = (await members(client)).members[0]
        request = pb.MemberUpdateRequest(ID=member.ID, peerURLs=["http://127.0.0.1:1"])
        answer = await client.call("Cluster/MemberUpdate", request, pb.MemberUpdateResponse)
        assert answer.members[0].peerURLs == ["http://127.0.0.1:1"]
