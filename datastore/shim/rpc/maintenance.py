"""etcdserverpb.Maintenance: status, alarms, defragmentation, a hash of the keys."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.backends.api import Alarm, BackendError, Row, to_revision
from datastore.shim.errors import Compacted, FutureRevision, NoLeader, NoSpace
from datastore.shim.members import Members
from datastore.shim.mvcc.ops import SetAlarms
from datastore.shim.mvcc.store import Store
from datastore.shim.replica import Replica
from datastore.shim.rpc.header import RAFT_TERM
from datastore.shim.rpc.kv import REQUEST_SECONDS
from datastore.shim.rpc.quota import Quota
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call
from datastore.shim.writer import Writer

HASH_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Release:
    """What this server says it is. kube-apiserver parses `version`: it must be plain semver."""

    version: str
    storage: str


class MaintenanceService:
    """Status, Alarm, Defragment, HashKV."""

    def __init__(
        self,
        desk: Desk,
        replica: Replica,
        writer: Writer,
        quota: Quota,
        *,
        release: Release,
        members: Members,
    ) -> None:
        self._headers = desk.headers
        self._health = desk.health
        self._replica = replica
        self._writer = writer
        self._release = release
        self._quota = quota
        self._members = members
        self._now = asyncio.get_running_loop().time
        desk.unary("/etcdserverpb.Maintenance/Status", self.status)
        desk.unary("/etcdserverpb.Maintenance/Alarm", self.alarm)
        desk.unary("/etcdserverpb.Maintenance/Defragment", self.defragment)
        desk.unary("/etcdserverpb.Maintenance/HashKV", self.hash_kv)

    async def status(self, call: Call, body: bytes) -> bytes:
        """Describe this server, also while the database is away."""
        release, quota = self._release, self._quota
        with contextlib.suppress(BackendError, NoLeader):  # while it is away, the last size known
            self._replica.check_reachable()
            await quota.measure()
        # Tools divide by the size, and an etcd has applied something before it serves.
        change = self._replica.position.change + 1
        answer = pb.StatusResponse(
            version=release.version,
            dbSize=max(1, quota.size.total),
            dbSizeInUse=quota.size.in_use,
            leader=self._members.first if self._health.serving else 0,
            raftIndex=change,
            raftAppliedIndex=change,
            raftTerm=RAFT_TERM,
            errors=self._errors(),
            storageVersion=release.storage,
            dbSizeQuota=max(quota.limit, 0),
            downgradeInfo=pb.DowngradeInfo(),
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
            await self._replica.read_index()
            return self._answer_alarms(
                [
                    alarm
                    for alarm in self._replica.store.alarms
                    if request.alarm in {pb.NONE, alarm.kind}
                ]
            )
        if request.alarm == pb.NONE:
            return self._header()
        alarm = Alarm(request.memberID, request.alarm)
        active = [known for known in self._replica.store.alarms if known != alarm]
        known = len(active) < len(self._replica.store.alarms)
        if request.action == pb.AlarmRequest.ACTIVATE:
            if not known:
                await self._set([*active, alarm], len(body))
            return self._answer_alarms([alarm])
        if known:
            await self._set(active, len(body))
        return self._answer_alarms([alarm] if known else [])

    async def _set(self, alarms: Sequence[Alarm], size: int) -> None:
        await self._writer.write(SetAlarms(alarms), size, self._now() + REQUEST_SECONDS)

    def _answer_alarms(self, alarms: Sequence[Alarm]) -> bytes:
        members = [
            pb.AlarmMember(memberID=alarm.member, alarm=pb.AlarmType.ValueType(alarm.kind))
            for alarm in alarms
        ]
        return self._header() + pb.AlarmResponse(alarms=members).SerializeToString()

    async def defragment(self, call: Call, body: bytes) -> bytes:
        """Give unused space back; as in etcd, the answer is empty."""
        await self._replica.lanes.chores(self._replica.backend.defragment)
        return b""

    async def hash_kv(self, call: Call, body: bytes) -> bytes:
        """Hash what can be read up to a revision: equal on every server of the database."""
        await self._replica.read_index()
        store = self._replica.store
        wanted = pb.HashKVRequest.FromString(body).revision
        revision = wanted or store.revision
        if revision > store.revision:
            raise FutureRevision
        while True:
            compacted = store.compacted
            if revision < compacted:
                raise Compacted(compacted)
            crc = await self._hash(store, revision, compacted)
            if store.compacted == compacted:
                break
        answer = pb.HashKVResponse(hash=crc, compact_revision=compacted, hash_revision=revision)
        return self._header() + answer.SerializeToString()

    async def _hash(self, store: Store, revision: int, compacted: int) -> int:
        # Seeded, as in etcd, so that nothing hashed is not 0: protobuf would leave that out.
        crc, first = zlib.crc32(b"key"), 0
        while True:
            page = await self._replica.history(first, revision, HASH_ROWS)
            for row in page.rows:
                if _is_kept(store, row, compacted):
                    crc = zlib.crc32(repr(row).encode(), crc)
            if not page.more:
                return crc
            first = to_revision(page.rows[-1].meta.id) + 1

    def _header(self) -> bytes:
        return self._headers.at(self._replica.store.revision)


def _is_kept(store: Store, row: Row, compacted: int) -> bool:
    """Return whether compaction keeps the row, whether or not garbage has been pruned yet."""
    if to_revision(row.meta.id) > compacted:
        return True
    kept = store.at(row.meta.key, compacted)
    return kept is not None and kept.id == row.meta.id
