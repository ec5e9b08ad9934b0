"""What locks and elections have in common: queues of keys, each on a lease, the oldest in front.

The recipes are those of etcd's ``clientv3/concurrency``. They are made of the handlers of KV and
Lease, called with the caller's own `Call`: what the caller may not do is refused there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from google.protobuf.message import DecodeError

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.backends.api import BackendError
from datastore.shim.errors import ShimError
from datastore.shim.rpc.kv import KvService
from datastore.shim.rpc.lease import LeaseService
from datastore.shim.rpc.service import to_refusal
from datastore.shim.transport.api import Call, Code, RpcError, Unary, settled
from datastore.shim.watch.hub import Hub
from datastore.shim.watch.watcher import Watcher, WatchSpec

SESSION_SECONDS: Final = 60
"""The lease of a caller who brings none. Nobody renews it, as in etcd."""


class Keys:
    """The caller's keys: read, written, and waited for."""

    def __init__(self, kv: KvService, lease: LeaseService, hub: Hub) -> None:
        self._kv = kv
        self._lease = lease
        self._hub = hub
        self._leaving: set[asyncio.Task[None]] = set()

    async def session(self, call: Call, lease: int) -> int:
        """Return the lease to use: the caller's, or for 0 a new one."""
        if lease:
            return lease
        request = pb.LeaseGrantRequest(TTL=SESSION_SECONDS)
        body = await _run(self._lease.grant, call, request.SerializeToString())
        return pb.LeaseGrantResponse.FromString(body).ID

    async def txn(self, call: Call, request: pb.TxnRequest) -> pb.TxnResponse:
        """Run a transaction."""
        body = await _run(self._kv.txn, call, request.SerializeToString())
        return pb.TxnResponse.FromString(body)

    async def range(self, call: Call, request: pb.RangeRequest) -> pb.RangeResponse:
        """Read."""
        body = await _run(self._kv.range, call, request.SerializeToString())
        return pb.RangeResponse.FromString(body)

    async def delete(self, call: Call, key: bytes) -> pb.DeleteRangeResponse:
        """Delete one key."""
        request = pb.DeleteRangeRequest(key=key)
        body = await _run(self._kv.delete_range, call, request.SerializeToString())
        return pb.DeleteRangeResponse.FromString(body)

    async def wait_for_turn(self, call: Call, prefix: bytes, revision: int) -> None:
        """Wait until no key of `prefix` is left that was created before `revision`.

        Each waiter watches the one before it alone: of many, one wakes when a key goes.
        """
        request = pb.RangeRequest(
            key=prefix,
            range_end=prefix_end(prefix),
            sort_order=pb.RangeRequest.DESCEND,
            sort_target=pb.RangeRequest.CREATE,
            limit=1,
            max_create_revision=revision - 1,
        )
        while (found := await self.range(call, request)).kvs:
            spec = WatchSpec(found.kvs[0].key, start_revision=found.header.revision + 1)
            with self.watch(spec) as events:
                await events.until_deleted()

    @contextmanager
    def watch(self, spec: WatchSpec) -> Iterator[Events]:
        """Watch keys."""
        events = Events(self._hub)
        self._hub.watch(spec, events, 0)
        try:
            yield events
        finally:
            self._hub.close(events)

    def leave(self, work: Coroutine[object, object, None]) -> None:
        """Have a key removed whose caller has gone; its lease removes it where this fails."""
        task = asyncio.create_task(_forgiven(work))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def entry(prefix: bytes, lease: int) -> bytes:
    """Return the key that stands for a lease in a queue."""
    return prefix + f"{lease:x}".encode()


def oldest(prefix: bytes) -> pb.RangeRequest:
    """Return the request for who is in front."""
    return pb.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        sort_order=pb.RangeRequest.ASCEND,
        sort_target=pb.RangeRequest.CREATE,
        limit=1,
    )


def unless_there(key: bytes, put: pb.PutRequest, *more: pb.RangeRequest) -> pb.TxnRequest:
    """Return the transaction that puts `key` or else reads it, and then reads `more`."""
    reads = [pb.RequestOp(request_range=request) for request in more]
    return pb.TxnRequest(
        compare=[created_at(key, 0)],
        success=[pb.RequestOp(request_put=put), *reads],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key)), *reads],
    )


def created_at(key: bytes, revision: int) -> pb.Compare:
    """Return the condition that `key` was created at a revision; 0 is that it is not there."""
    return pb.Compare(key=key, target=pb.Compare.CREATE, create_revision=revision)


def prefix_end(prefix: bytes) -> bytes:
    """Return the range end of all keys that begin with `prefix`, which ends in a slash."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


class Events:
    """A watch stream (watch.watcher.WatchStream) that is read here."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._over = False
        self._arrived = asyncio.Event()

    async def until_deleted(self) -> None:
        """Return when a key was deleted, or when compaction has overtaken the watcher."""
        while (response := await self.next()) is not None:
            if any(event.type == event.DELETE for event in response.events):
                return

    async def next(self) -> pb.WatchResponse | None:
        """Return the next response, None when compaction has overtaken the watcher."""
        while not self._waiting:
            if self._over:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        message = self._waiting.popleft()
        self._size -= len(message)
        if not self._size:
            self._hub.drained(self)
        return pb.WatchResponse.FromString(message)

    def events(self, watcher: Watcher, revision: int, body: bytes, last_part: bool) -> int:
        header = pb.WatchResponse(header=pb.ResponseHeader(revision=revision))
        message = header.SerializeToString() + body
        self._waiting.append(message)
        self._size += len(message)
        self._arrived.set()
        return self._size

    def progress(self, watcher: Watcher | None, revision: int) -> None:
        """Take no note: nobody asked."""

    def canceled(self, watcher: Watcher, compact_revision: int) -> None:
        self._over = True
        self._arrived.set()


async def _run(handler: Unary, call: Call, body: bytes) -> bytes:
    """Call a handler; an error goes on as etcd's own client passes it on: text without code."""
    try:
        return await settled(handler(call, body))
    except (RpcError, ShimError, BackendError, DecodeError) as error:
        raise RpcError(Code.UNKNOWN, to_refusal(error).message) from error


async def _forgiven(work: Coroutine[object, object, None]) -> None:
    with suppress(RpcError):
        await work
