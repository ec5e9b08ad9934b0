"""etcdserverpb.Cluster: who serves this database. Members come and go by themselves."""

from __future__ import annotations

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.members import Members
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call


class ClusterService:
    """MemberList; the rest is UNIMPLEMENTED, for there is no raft group to change."""

    def __init__(self, desk: Desk, members: Members) -> None:
        self._headers = desk.headers
        self._members = members
        desk.unary("/etcdserverpb.Cluster/MemberList", self.member_list)

    async def member_list(self, call: Call, body: bytes) -> bytes:
        """List the servers; as in etcd, the header has no revision.

        Not linearizable it is what was last known, also while the database is away.
        """
        members = self._members
        wants_latest = pb.MemberListRequest.FromString(body).linearizable
        answer = pb.MemberListResponse(
            members=[
                pb.Member(ID=member.id, name=member.name, clientURLs=member.client_urls)
                for member in (await members.beat() if wants_latest else members.live)
            ]
        )
        return self._headers.without_revision + answer.SerializeToString()
