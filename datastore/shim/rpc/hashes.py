"""Maintenance/Hash and HashKV: equal on every server of the database, not equal to etcd's.

etcd compares hashes among the members of one cluster only; so what is hashed is byre's own rows.
"""

from __future__ import annotations

import zlib

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.errors import Compacted, FutureRevision
from datastore.shim.replica import Replica
from datastore.shim.rpc.service import Desk
from datastore.shim.snapshot.cut import Cut, Overtaken, cut
from datastore.shim.snapshot.records import auth_records, role_records, user_records
from datastore.shim.transport.api import Call


class HashService:
    """Hashes of everything, and of the keys up to a revision."""

    def __init__(self, desk: Desk, replica: Replica) -> None:
        self._headers = desk.headers
        self._guard = desk.guard
        self._replica = replica
        desk.unary("/etcdserverpb.Maintenance/Hash", self.hash)
        desk.unary("/etcdserverpb.Maintenance/HashKV", self.hash_kv)

    async def hash(self, call: Call, body: bytes) -> bytes:
        """Hash keys, leases, alarms, users and roles."""
        await self._guard.require_admin(call)
        while True:
            async with cut(self._replica) as state:
                try:
                    crc = await _hash_rows(state, state.revision)
                except Overtaken:
                    continue
            auth = (
                *auth_records(state.auth),
                *user_records(state.auth),
                *role_records(state.auth),
            )
            for part in (state.leases, state.alarms, auth):
                crc = zlib.crc32(repr(part).encode(), crc)
            answer = pb.HashResponse(hash=crc)
            return self._headers.at(state.revision) + answer.SerializeToString()

    async def hash_kv(self, call: Call, body: bytes) -> bytes:
        """Hash what can be read up to a revision; 0 is the current one."""
        await self._guard.require_admin(call)
        wanted = pb.HashKVRequest.FromString(body).revision
        while True:
            async with cut(self._replica) as state:
                revision = wanted or state.revision
                if revision > state.revision:
                    raise FutureRevision
                if revision < state.compacted:
                    raise Compacted(state.compacted)
                try:
                    crc = await _hash_rows(state, revision)
                except Overtaken:
                    continue
            answer = pb.HashKVResponse(
                hash=crc, compact_revision=state.compacted, hash_revision=revision
            )
            header = self._headers.at(self._replica.store.revision)
            return header + answer.SerializeToString()


async def _hash_rows(state: Cut, revision: int) -> int:
    # Seeded, as in etcd, so that nothing hashed is not 0: protobuf would leave that out.
    crc = zlib.crc32(b"key")
    async for rows in state.read(revision):
        for row in rows:
            crc = zlib.crc32(repr(row).encode(), crc)
    return crc
