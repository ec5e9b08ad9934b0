"""v3lockpb.Lock: who created the oldest key under a name holds the lock (contract 2.11)."""

from __future__ import annotations

import asyncio

from datastore.etcdpb import lock_pb2 as lockpb
from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.rpc import concurrency
from datastore.shim.rpc.concurrency import Keys
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call, Code, RpcError


class LockService:
    """Lock and Unlock."""

    def __init__(self, desk: Desk, keys: Keys) -> None:
        self._keys = keys
        desk.waiting("/v3lockpb.Lock/Lock", self.lock)
        desk.unary("/v3lockpb.Lock/Unlock", self.unlock)

    async def lock(self, call: Call, body: bytes) -> bytes:
        """Wait until the lock is held, and say by which key.

        A caller that stops waiting leaves the queue, even while it is being put there.
        """
        request = lockpb.LockRequest.FromString(body)
        prefix = request.name + b"/"
        lease = await self._keys.session(call, request.lease)
        key = concurrency.entry(prefix, lease)
        joining = asyncio.ensure_future(self._join(call, prefix, key, lease))
        try:
            header = await self._wait(call, prefix, key, await asyncio.shield(joining))
        except BaseException:
            self._keys.leave(self._leave(call, key, joining))
            raise
        if header is None:
            raise RpcError(Code.UNKNOWN, "mutex: session is expired")
        return lockpb.LockResponse(header=header, key=key).SerializeToString()

    async def unlock(self, call: Call, body: bytes) -> bytes:
        """Delete the key that holds the lock."""
        request = lockpb.UnlockRequest.FromString(body)
        answer = await self._keys.delete(call, request.key)
        return lockpb.UnlockResponse(header=answer.header).SerializeToString()

    async def _join(self, call: Call, prefix: bytes, key: bytes, lease: int) -> pb.TxnResponse:
        put = pb.PutRequest(key=key, lease=lease)
        request = concurrency.unless_there(key, put, concurrency.oldest(prefix))
        return await self._keys.txn(call, request)

    async def _wait(
        self, call: Call, prefix: bytes, key: bytes, joined: pb.TxnResponse
    ) -> pb.ResponseHeader | None:
        """Wait for those in front; None when the own key went meanwhile, with its lease."""
        own = joined.header.revision
        if not joined.succeeded:
            own = joined.responses[0].response_range.kvs[0].create_revision
        if joined.responses[1].response_range.kvs[0].create_revision == own:
            return joined.header
        await self._keys.wait_for_turn(call, prefix, own)
        found = await self._keys.range(call, pb.RangeRequest(key=key))
        return found.header if found.kvs else None

    async def _leave(
        self, call: Call, key: bytes, joining: asyncio.Future[pb.TxnResponse]
    ) -> None:
        await joining
        await self._keys.delete(call, key)
