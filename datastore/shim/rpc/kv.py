"""etcdserverpb.KV: check, call the engine, encode."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.errors import RequestTooLarge, ShimError, UserEmpty
from datastore.shim.mvcc import ops
from datastore.shim.mvcc.auth import ANONYMOUS
from datastore.shim.mvcc.check import check, check_overlaps
from datastore.shim.mvcc.txn import is_read_only, needs_space
from datastore.shim.pruner import Pruner
from datastore.shim.reader import Chunk, Reader
from datastore.shim.rpc import convert, shapes
from datastore.shim.rpc.quota import Quota
from datastore.shim.rpc.service import Desk, to_refusal
from datastore.shim.transport.api import Body, Call, Code, Later, RpcError
from datastore.shim.writer import Writer

REQUEST_SECONDS: Final = 7.0
"""How long a write may wait: etcd's 5 s and two election timeouts."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds on one request."""

    max_bytes: int = 3 << 19
    max_txn_ops: int = 128


class KvService:
    """Range, RangeStream, Put, DeleteRange, Txn, Compact."""

    def __init__(
        self,
        desk: Desk,
        reader: Reader,
        writer: Writer,
        pruner: Pruner,
        *,
        quota: Quota,
        limits: RequestLimits,
    ) -> None:
        self.values_served = 0
        """Keys that ranges have returned, to compare with what had to be fetched."""
        self._headers = desk.headers
        self._guard = desk.guard
        self._reader = reader
        self._writer = writer
        self._pruner = pruner
        self._quota = quota
        self._limits = limits
        self._now = asyncio.get_running_loop().time
        desk.unary("/etcdserverpb.KV/Range", self.range)
        desk.stream("/etcdserverpb.KV/RangeStream", self.range_stream, "server_stream")
        desk.unary("/etcdserverpb.KV/Put", self.put)
        desk.unary("/etcdserverpb.KV/DeleteRange", self.delete_range)
        desk.unary("/etcdserverpb.KV/Txn", self.txn)
        desk.unary("/etcdserverpb.KV/Compact", self.compact)

    def range(self, call: Call, body: bytes) -> Body | Awaitable[Body]:
        """Answer at once where nothing must be waited for. Hot."""
        op = shapes.decode_range(body)
        if op is None:
            op = convert.to_range(pb.RangeRequest.FromString(body))
            check(op)
        if self._guard.enabled:
            return self._range_later(call, op)
        result = self._reader.try_range(op)
        if result is None:
            return self._range_later(call, op)
        self.values_served += len(result.kvs)
        return convert.from_range(self._headers.at(result.revision), result)

    async def _range_later(self, call: Call, op: ops.Range) -> Body:
        result = await self._reader.range(op, partial(self._guard.identify, call))
        self.values_served += len(result.kvs)
        return convert.from_range(self._headers.at(result.revision), result)

    async def range_stream(self, call: Call) -> None:
        """Stream a range in chunks; only the last has header, count and more."""
        request = pb.RangeRequest.FromString(await call.recv() or b"")
        op = convert.to_range(request)
        check(op)
        _check_streamable(op)
        async for chunk in self._reader.stream(op, partial(self._guard.identify, call)):
            self.values_served += len(chunk.kvs)
            await call.send(self._encode_chunk(chunk))

    def _encode_chunk(self, chunk: Chunk) -> Body:
        if not chunk.last:
            return convert.from_chunk(chunk.kvs)
        tail = convert.range_tail(more=chunk.more, count=chunk.count)
        return convert.from_chunk((self._headers.at(chunk.revision), *chunk.kvs, tail))

    def put(self, call: Call, body: bytes) -> Later | Awaitable[bytes]:
        """Put one key. Hot."""
        self._check_size(body)
        op = shapes.decode_put(body)
        if op is None:
            op = convert.to_put(pb.PutRequest.FromString(body))
            check(op)
        size = len(body)
        if self._quota.is_near(size) or self._guard.enabled:
            return self._write_checked(call, op, size)
        return self._write(call, op, size)

    def delete_range(self, call: Call, body: bytes) -> Later | Awaitable[bytes]:
        """Delete a range of keys. Hot."""
        self._check_size(body)
        op = convert.to_delete_range(pb.DeleteRangeRequest.FromString(body))
        check(op)
        if self._guard.enabled:
            return self._write_checked(call, op, len(body))
        return self._write(call, op, len(body))

    def txn(self, call: Call, body: bytes) -> Later | Awaitable[bytes]:
        """Run a transaction; one that only reads is a read. Hot."""
        op = shapes.decode_txn(body)
        if op is None:
            op = convert.to_txn(pb.TxnRequest.FromString(body), self._limits.max_txn_ops)
            check_overlaps(op)
            if is_read_only(op):
                return self._read_txn(call, op)
        self._check_size(body)
        size = len(body)
        if self._quota.is_near(size) or self._guard.enabled:
            return self._write_checked(call, op, size)
        return self._write(call, op, size)

    async def compact(self, call: Call, body: bytes) -> bytes:
        """Compact; with `physical`, answer when the old revisions have left the database."""
        await self._guard.require_admin(call)
        request = pb.CompactionRequest.FromString(body)
        op, deadline = ops.Compact(request.revision), self._now() + REQUEST_SECONDS
        result = await self._writer.write(op, ANONYMOUS, len(body), deadline)
        if request.physical:
            await self._pruner.physical()
        return self._headers.at(result.revision)

    async def _read_txn(self, call: Call, op: ops.Txn) -> bytes:
        return self._encode(await self._reader.txn(op, partial(self._guard.identify, call)))

    async def _write_checked(self, call: Call, op: ops.Write, size: int) -> bytes:
        """Write within the quota, on behalf of whoever calls."""
        if self._quota.is_near(size) and needs_space(op):
            await self._quota.admit(size)
        deadline = self._now() + REQUEST_SECONDS
        result = await self._guard.act(
            call, lambda caller: self._writer.write(op, caller, size, deadline)
        )
        return self._encode(result)

    def _write(self, call: Call, op: ops.Write, size: int) -> Later:
        """Queue a write, to be answered when its batch is durable: no task, no future. Hot.

        It is nobody's: should auth be on by then, it is not done, and who calls is asked then.
        """
        later = Later()

        def take(result: ops.Result | None, error: ShimError | None) -> None:
            if result is not None:
                later.answer(self._encode(result))
            elif isinstance(error, UserEmpty):
                self._write_later(later, self._write_checked(call, op, size))
            elif error is not None:
                later.refuse(to_refusal(error))

        pending = self._writer.submit(op, ANONYMOUS, size, take, self._now() + REQUEST_SECONDS)
        later.on_abandon = pending.abandon
        return later

    def _write_later(self, later: Later, write: Coroutine[Any, Any, bytes]) -> None:
        """Answer with what becomes of a second attempt."""

        def take(done: asyncio.Task[bytes]) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if error is None:
                later.answer(done.result())
            elif isinstance(error, Exception):
                later.refuse(to_refusal(error))

        task = asyncio.create_task(write)
        later.on_abandon = task.cancel
        task.add_done_callback(take)

    def _encode(self, result: ops.Result) -> bytes:
        """Return the answer to what a client wrote. Hot."""
        header = self._headers.at(result.revision)
        if isinstance(result, ops.TxnResult):
            return convert.from_txn(header, result)
        if isinstance(result, ops.PutResult):
            return convert.from_put(header, result)
        assert isinstance(result, ops.DeleteRangeResult)
        return convert.from_delete_range(header, result)

    def _check_size(self, body: bytes) -> None:
        if len(body) > self._limits.max_bytes:
            raise RequestTooLarge


def _check_streamable(op: ops.Range) -> None:
    # As etcd 3.7.3: no order beside a target passes, and sorts.
    by_key = op.sort_target is ops.SortTarget.KEY
    if op.sort_order is ops.SortOrder.DESCEND or (op.sort_order and not by_key):
        raise RpcError(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders")
    if op.min_mod or op.max_mod or op.min_create or op.max_create:
        raise RpcError(Code.UNIMPLEMENTED, "RangeStream does not support revision filters")
