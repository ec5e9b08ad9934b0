"""etcdserverpb.Cluster: who serves this database. Members come and go by themselves."""

from __future__ import annotations

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.backends.api import Member
from datastore.shim.replica import Replica
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call


class ClusterService:
    """MemberList; the rest is UNIMPLEMENTED, for there is no raft group to change."""

    def __init__(self, desk: Desk, replica: Replica, me: Member) -> None:
        self._headers = desk.headers
        self._replica = replica
        self._me = me
        desk.unary("/etcdserverpb.Cluster/MemberList", self.member_list)

    async def member_list(self, call: Call, body: bytes) -> bytes:
        """List the servers; as in etcd, the header has no revision."""
        if pb.MemberListRequest.FromString(body).linearizable:
            await self._replica.read_index()
        answer = pb.MemberListResponse(
            members=[
                pb.Member(ID=member.id, name=member.name, clientURLs=member.client_urls)
                for member in await self._members()
            ]
        )
        return self._headers.without_revision + answer.SerializeToString()

    async def _members(self) -> list[Member]:
        replica = self._replica
        if not replica.shared:
            return [self._me]
        # The pruner says how far this server has read; here nothing may be promised.
        me = self._me._replace(horizon=replica.store.compacted)
        return list(await replica.lanes.upkeep(replica.backend.heartbeat, me))
