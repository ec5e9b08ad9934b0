"""Maintenance/Downgrade: etcd's answers to whoever prepares to go back to an older release.

In etcd an enabled downgrade lets members of the release before join. Here nothing waits for it: no
server of another release is kept out, so a job is only remembered, by this server, until it is
cancelled or the server ends.
"""

from __future__ import annotations

import re
from typing import Final

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.replica import Replica
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call, Code, RpcError

_IDENTIFIERS: Final = r"(?:[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
_VERSION: Final = re.compile(
    r"(?P<major>[0-9]{1,18})\.(?P<minor>[0-9]{1,18})"
    rf"(?:\.[0-9]{{1,18}}(?:-{_IDENTIFIERS})?(?:\+{_IDENTIFIERS})?)?",
    re.ASCII,
)
"""What etcd takes: semver, or only its first two numbers (go-semver, convertToClusterVersion)."""


class DowngradeService:
    """Validates, enables and cancels a downgrade to the minor release before this one.

    Args:
        version: The release that is served, plain semver.
    """

    def __init__(self, desk: Desk, replica: Replica, version: str) -> None:
        self.target = ""
        """The version of the job under way, empty where there is none."""
        self._headers = desk.headers
        self._guard = desk.guard
        self._replica = replica
        self._major, self._minor = map(int, version.split(".")[:2])
        desk.unary("/etcdserverpb.Maintenance/Downgrade", self.downgrade)

    async def downgrade(self, call: Call, body: bytes) -> bytes:
        """Answer with the version that is served now, whatever was asked."""
        await self._guard.require_admin(call)
        request = pb.DowngradeRequest.FromString(body)
        action = request.action
        if action not in pb.DowngradeRequest.DowngradeAction.values():
            raise RpcError(Code.UNKNOWN, "etcdserver: unknown method")
        await self._replica.read_index()
        if action == pb.DowngradeRequest.CANCEL:  # also without a job, as in etcd
            self.target = ""
        else:
            target = self._check(request.version)
            if action == pb.DowngradeRequest.ENABLE:
                self.target = target
        answer = pb.DowngradeResponse(version=f"{self._major}.{self._minor}")
        return self._headers.at(self._replica.store.revision) + answer.SerializeToString()

    def _check(self, version: str) -> str:
        """Return the release that `version` names. Raises RpcError where one cannot go to it."""
        named = _VERSION.fullmatch(version)
        if named is None:
            text = "etcdserver: wrong downgrade target version format"
            raise RpcError(Code.INVALID_ARGUMENT, text)
        major, minor = int(named["major"]), int(named["minor"])
        if (major, minor) != (self._major, self._minor - 1):
            raise RpcError(Code.INVALID_ARGUMENT, "etcdserver: invalid downgrade target version")
        if self.target:
            text = "etcdserver: cluster has a downgrade job in progress"
            raise RpcError(Code.FAILED_PRECONDITION, text)
        return f"{major}.{minor}.0"
