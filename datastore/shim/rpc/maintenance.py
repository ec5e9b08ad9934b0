"""etcdserverpb.Maintenance: status, alarms, defragmentation, and who leads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.backends.api import Alarm, BackendError
from datastore.shim.errors import NoLeader, NoSpace
from datastore.shim.members import Members
from datastore.shim.mvcc.auth import SERVER
from datastore.shim.mvcc.ops import SetAlarm
from datastore.shim.replica import Replica
from datastore.shim.rpc.downgrade import DowngradeService
from datastore.shim.rpc.header import RAFT_TERM
from datastore.shim.rpc.kv import REQUEST_SECONDS
from datastore.shim.rpc.quota import Quota
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call, Code, RpcError
from datastore.shim.writer import Writer


@dataclass(frozen=True, slots=True)
class Release:
    """What this server says it is. kube-apiserver parses `version`: it must be plain semver."""

    version: str
    storage: str


class MaintenanceService:
    """Status, Alarm, Defragment, MoveLeader."""

    def __init__(
        self,
        desk: Desk,
        replica: Replica,
        writer: Writer,
        quota: Quota,
        *,
        release: Release,
        members: Members,
        downgrade: DowngradeService,
    ) -> None:
        self._headers = desk.headers
        self._guard = desk.guard
        self._health = desk.health
        self._replica = replica
        self._writer = writer
        self._release = release
        self._quota = quota
        self._members = members
        self._downgrade = downgrade
        self._now = asyncio.get_running_loop().time
        desk.unary("/etcdserverpb.Maintenance/Status", self.status)
        desk.unary("/etcdserverpb.Maintenance/Alarm", self.alarm)
        desk.unary("/etcdserverpb.Maintenance/Defragment", self.defragment)
        desk.unary("/etcdserverpb.Maintenance/MoveLeader", self.move_leader)

    async def status(self, call: Call, body: bytes) -> bytes:
        """Describe this server, also while the database is away."""
        await self._guard.require_user(call)
        release, quota = self._release, self._quota
        with contextlib.suppress(BackendError, NoLeader):  # while it is away, the last size known
            self._replica.check_reachable()
            await quota.measure()
        # Tools divide by the size, and an etcd has applied something before it serves.
        change = self._replica.position.change + 1
        target = self._downgrade.target
        answer = pb.StatusResponse(
            version=release.version,
            dbSize=max(1, quota.size.total),
            dbSizeInUse=quota.size.in_use,
            leader=self._leader,
            raftIndex=change,
            raftAppliedIndex=change,
            raftTerm=RAFT_TERM,
            errors=self._errors(),
            storageVersion=release.storage,
            dbSizeQuota=max(quota.limit, 0),
            downgradeInfo=pb.DowngradeInfo(enabled=bool(target), targetVersion=target),
        )
        return self._header() + answer.SerializeToString()

    def _errors(self) -> list[str]:
        errors = [] if self._health.serving else [NoLeader.text]
        errors += [NoSpace.text] if self._quota.is_disk_full else []
        alarms = self._replica.store.alarms
        errors += [
            f"memberID:{a.member}  alarm:{pb.AlarmType.Name(pb.AlarmType.ValueType(a.kind))}"
            for a in alarms
        ]
        return errors

    async def alarm(self, call: Call, body: bytes) -> bytes:
        """List, raise or disarm alarms."""
        request = pb.AlarmRequest.FromString(body)
        if request.action == pb.AlarmRequest.GET:
            await self._guard.require_user(call)
            await self._replica.read_index()
            wanted, active = request.alarm, self._replica.store.alarms
            return self._answer_alarms([a for a in active if wanted in {pb.NONE, a.kind}])
        await self._guard.require_admin(call)
        if request.alarm == pb.NONE:
            return self._header()
        activate = _is_activation(request)
        alarm = Alarm(request.memberID, request.alarm)
        await self._replica.read_index()
        was_active = alarm in self._replica.store.alarms
        write, deadline = SetAlarm(alarm, activate), self._now() + REQUEST_SECONDS
        await self._writer.write(write, SERVER, len(body), deadline)
        return self._answer_alarms([alarm] if activate or was_active else [])

    def _answer_alarms(self, alarms: Sequence[Alarm]) -> bytes:
        members = [
            pb.AlarmMember(memberID=alarm.member, alarm=pb.AlarmType.ValueType(alarm.kind))
            for alarm in alarms
        ]
        return self._header() + pb.AlarmResponse(alarms=members).SerializeToString()

    async def defragment(self, call: Call, body: bytes) -> bytes:
        """Give unused space back; as in etcd, the answer is empty."""
        await self._guard.require_admin(call)
        await self._replica.lanes.rebuild(self._replica.backend.defragment)
        return b""

    async def move_leader(self, call: Call, body: bytes) -> bytes:
        """Answer as an etcd whose leader stays where it is; the answer is empty.

        The first server leads, by its id, and that cannot be changed.
        """
        await self._guard.require_admin(call)
        leader = self._leader
        if leader != self._headers.member_id:
            raise RpcError(Code.FAILED_PRECONDITION, "etcdserver: not leader")
        target = pb.MoveLeaderRequest.FromString(body).targetID
        if all(member.id != target for member in self._members.live):
            raise RpcError(Code.FAILED_PRECONDITION, "etcdserver: bad leader transferee")
        if target != leader:
            text = "etcdserver: request timed out, leader transfer took too long"
            raise RpcError(Code.UNKNOWN, text)
        return b""

    @property
    def _leader(self) -> int:
        return self._members.first if self._health.serving else 0

    def _header(self) -> bytes:
        return self._headers.at(self._replica.store.revision)


def _is_activation(request: pb.AlarmRequest) -> bool:
    """Return whether to raise an alarm, or to disarm it. Raises RpcError where etcd panics."""
    if request.action == pb.AlarmRequest.DEACTIVATE:
        return False
    if request.action != pb.AlarmRequest.ACTIVATE or request.alarm not in pb.AlarmType.values():
        raise RpcError(Code.INVALID_ARGUMENT, "etcdserver: unknown alarm or action")
    return True
