"""etcdserverpb.Cluster: who serves this database.

Servers come and go by themselves, with their heartbeats: nobody has to be added, and who lives
cannot be removed. Changes are therefore refused, with the error that etcd has for the case.
"""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import urlsplit

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.members import Members
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call, Code, RpcError


class ClusterService:
    """MemberList, and the refusals of MemberAdd, MemberRemove, MemberUpdate and MemberPromote."""

    def __init__(self, desk: Desk, members: Members) -> None:
        self._headers = desk.headers
        self._guard = desk.guard
        self._members = members
        desk.unary("/etcdserverpb.Cluster/MemberList", self.member_list)
        desk.unary("/etcdserverpb.Cluster/MemberAdd", self.member_add)
        desk.unary("/etcdserverpb.Cluster/MemberRemove", self.member_remove)
        desk.unary("/etcdserverpb.Cluster/MemberUpdate", self.member_update)
        desk.unary("/etcdserverpb.Cluster/MemberPromote", self.member_promote)

    async def member_list(self, call: Call, body: bytes) -> bytes:
        """List the servers; as in etcd, the header has no revision.

        Not linearizable it is what was last known, also while the database is away.
        """
        members = self._members
        wants_latest = pb.MemberListRequest.FromString(body).linearizable
        found = await members.beat() if wants_latest else members.live
        await self._guard.require_user(call)
        answer = pb.MemberListResponse(
            members=[
                pb.Member(ID=member.id, name=member.name, clientURLs=member.client_urls)
                for member in found
            ]
        )
        return self._headers.without_revision + answer.SerializeToString()

    async def member_add(self, call: Call, body: bytes) -> bytes:
        """Refuse: a server is added by starting it on the database."""
        urls = pb.MemberAddRequest.FromString(body).peerURLs
        if not urls or not all(map(_is_peer_url, urls)):
            _refuse_urls()
        await self._guard.require_admin(call)
        _refuse_change()

    async def member_remove(self, call: Call, body: bytes) -> bytes:
        """Refuse: a server is removed by stopping it."""
        await self._guard.require_admin(call)
        await self._find(pb.MemberRemoveRequest.FromString(body).ID)
        _refuse_change()

    async def member_update(self, call: Call, body: bytes) -> bytes:
        """Refuse: servers have no peers to talk to, and so no peer URLs."""
        await self._guard.require_admin(call)
        await self._find(pb.MemberUpdateRequest.FromString(body).ID)
        _refuse_urls()

    async def member_promote(self, call: Call, body: bytes) -> bytes:
        """Refuse: nobody is a learner."""
        await self._guard.require_admin(call)
        await self._find(pb.MemberPromoteRequest.FromString(body).ID)
        raise RpcError(Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member")

    async def _find(self, member_id: int) -> None:
        if all(member.id != member_id for member in await self._members.beat()):
            raise RpcError(Code.NOT_FOUND, "etcdserver: member not found")


def _refuse_change() -> NoReturn:
    # The code is etcd's, which does not map this error of its own.
    text = "etcdserver: re-configuration failed due to not enough started members"
    raise RpcError(Code.UNKNOWN, text)


def _refuse_urls() -> NoReturn:
    raise RpcError(Code.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")


def _is_peer_url(url: str) -> bool:
    """Return whether etcd takes it (client/pkg/types: NewURLs)."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return False
    if parts.scheme in {"unix", "unixs"}:
        return True
    return parts.scheme in {"http", "https"} and not parts.path and port is not None
