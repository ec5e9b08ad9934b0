"""v3electionpb.Election: who created the oldest key under a name leads (contract 2.11)."""

from __future__ import annotations

import asyncio

from datastore.etcdpb import election_pb2 as electionpb
from datastore.etcdpb import rpc_pb2 as pb
from datastore.etcdpb.kv_pb2 import KeyValue
from datastore.shim.rpc import concurrency
from datastore.shim.rpc.concurrency import Keys
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call, Code, RpcError
from datastore.shim.watch.watcher import WatchSpec


class ElectionService:
    """Campaign, Proclaim, Leader, Observe, Resign."""

    def __init__(self, desk: Desk, keys: Keys) -> None:
        self._headers = desk.headers
        self._keys = keys
        desk.waiting("/v3electionpb.Election/Campaign", self.campaign)
        desk.unary("/v3electionpb.Election/Proclaim", self.proclaim)
        desk.unary("/v3electionpb.Election/Leader", self.leader)
        desk.stream("/v3electionpb.Election/Observe", self.observe, "server_stream")
        desk.unary("/v3electionpb.Election/Resign", self.resign)

    async def campaign(self, call: Call, body: bytes) -> bytes:
        """Wait until the caller leads; one that stops waiting is no candidate any more.

        As in etcd, the header is that of the candidacy, and a candidate whose lease ends while
        it waits is not told.
        """
        request = electionpb.CampaignRequest.FromString(body)
        prefix = request.name + b"/"
        lease = await self._keys.session(call, request.lease)
        key = concurrency.entry(prefix, lease)
        joining = asyncio.ensure_future(self._join(call, key, lease, request.value))
        try:
            header, revision = await asyncio.shield(joining)
            await self._keys.wait_for_turn(call, prefix, revision)
        except asyncio.CancelledError:
            self._keys.leave(self._leave(call, key, joining))
            raise
        leader = electionpb.LeaderKey(name=request.name, key=key, rev=revision, lease=lease)
        return electionpb.CampaignResponse(header=header, leader=leader).SerializeToString()

    async def proclaim(self, call: Call, body: bytes) -> bytes:
        """Change the value that the leader shows."""
        request = electionpb.ProclaimRequest.FromString(body)
        leader = _given(request)
        lease = await self._keys.session(call, leader.lease)
        header = await self._proclaim(call, leader.key, leader.rev, lease, request.value)
        return electionpb.ProclaimResponse(header=header).SerializeToString()

    async def leader(self, call: Call, body: bytes) -> bytes:
        """Return the leader's key."""
        prefix = electionpb.LeaderRequest.FromString(body).name + b"/"
        found = await self._keys.range(call, concurrency.oldest(prefix))
        if not found.kvs:
            raise RpcError(Code.UNKNOWN, "election: no leader")
        return _encode(found.header, found.kvs[0])

    async def observe(self, call: Call) -> None:
        """Send each leader and each of its proclamations.

        As in etcd, the stream ends without an error when there is nothing to be read.
        """
        request = electionpb.LeaderRequest.FromString(await call.recv() or b"")
        prefix = request.name + b"/"
        while True:
            try:
                found = await self._keys.range(call, concurrency.oldest(prefix))
            except RpcError:
                return
            kv = found.kvs[0] if found.kvs else await self._first(prefix, found.header.revision)
            if kv is not None:
                revision = found.header.revision if found.kvs else kv.mod_revision
                await call.send(_encode(self._header(revision), kv))
                await self._follow(call, kv.key, revision)

    async def resign(self, call: Call, body: bytes) -> bytes:
        """Give up the lead; no error for who does not lead."""
        leader = _given(electionpb.ResignRequest.FromString(body))
        header = await self._resign(call, leader.key, leader.rev)
        return electionpb.ResignResponse(header=header).SerializeToString()

    async def _join(
        self, call: Call, key: bytes, lease: int, value: bytes
    ) -> tuple[pb.ResponseHeader, int]:
        """Become a candidate; return the header and the revision that made the key."""
        put = pb.PutRequest(key=key, value=value, lease=lease)
        answer = await self._keys.txn(call, concurrency.unless_there(key, put))
        if answer.succeeded:
            return answer.header, answer.header.revision
        found = answer.responses[0].response_range.kvs[0]
        if found.value != value:
            try:
                await self._proclaim(call, key, found.create_revision, lease, value)
            except RpcError:
                await self._resign(call, key, found.create_revision)
                raise
        return answer.header, found.create_revision

    async def _proclaim(
        self, call: Call, key: bytes, revision: int, lease: int, value: bytes
    ) -> pb.ResponseHeader:
        put = pb.PutRequest(key=key, value=value, lease=lease)
        request = pb.TxnRequest(
            compare=[concurrency.created_at(key, revision)],
            success=[pb.RequestOp(request_put=put)],
        )
        answer = await self._keys.txn(call, request)
        if not answer.succeeded:
            raise RpcError(Code.UNKNOWN, "election: not leader")
        return answer.header

    async def _resign(self, call: Call, key: bytes, revision: int) -> pb.ResponseHeader:
        delete = pb.DeleteRangeRequest(key=key)
        request = pb.TxnRequest(
            compare=[concurrency.created_at(key, revision)],
            success=[pb.RequestOp(request_delete_range=delete)],
        )
        return (await self._keys.txn(call, request)).header

    async def _leave(
        self, call: Call, key: bytes, joining: asyncio.Future[tuple[pb.ResponseHeader, int]]
    ) -> None:
        _, revision = await joining
        await self._resign(call, key, revision)

    async def _first(self, prefix: bytes, revision: int) -> KeyValue | None:
        """Return the first key that is put after a revision; None is to look again."""
        end = concurrency.prefix_end(prefix)
        spec = WatchSpec(prefix, end, revision + 1, no_delete=True)
        with self._keys.watch(spec) as events:
            response = await events.next()
        return response.events[0].kv if response is not None else None

    async def _follow(self, call: Call, key: bytes, revision: int) -> None:
        """Send the proclamations after a revision, until the leader is no more."""
        with self._keys.watch(WatchSpec(key, start_revision=revision + 1)) as events:
            while (response := await events.next()) is not None:
                for event in response.events:
                    if event.type == event.DELETE:
                        return
                    await call.send(_encode(self._header(response.header.revision), event.kv))

    def _header(self, revision: int) -> pb.ResponseHeader:
        return pb.RangeResponse.FromString(self._headers.at(revision)).header


def _given(request: electionpb.ProclaimRequest | electionpb.ResignRequest) -> electionpb.LeaderKey:
    if not request.HasField("leader"):
        raise RpcError(Code.UNKNOWN, '"leader" field must be provided')
    return request.leader


def _encode(header: pb.ResponseHeader, kv: KeyValue) -> bytes:
    return electionpb.LeaderResponse(header=header, kv=kv).SerializeToString()
