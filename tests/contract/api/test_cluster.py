"""Cluster.MemberList (contract 2.9; trap T45)."""

from __future__ import annotations

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client


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
