"""What a server does for its clients leaves no reference cycles."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from datastore.etcdpb import rpc_pb2_grpc
from datastore.shim.options import ServeOptions
from datastore.shim.server import Shim
from datastore.shim.transport.api import Limits
from datastore.shim.transport.http2.server import Http2Transport

TIMES = 30


@contextmanager
def cyclic_garbage() -> Iterator[Counter[str]]:
    """Count by type what of ours only a cyclic collection would free."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = [type(thing) for thing in gc.garbage]
        found.update(k.__qualname__ for k in kinds if k.__module__.startswith("datastore.shim"))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def _use(path: str) -> None:
    """Call, be refused, watch, and go away without a word."""
    async with grpc.aio.insecure_channel(path) as channel:
        kv, lease = rpc_pb2_grpc.KVStub(channel), rpc_pb2_grpc.LeaseStub(channel)
        put = pb.PutRequest(key=b"k", value=b"v")
        await asyncio.gather(*(kv.Put(put) for _ in range(TIMES)))
        await kv.Range(pb.RangeRequest(key=b"a", range_end=b"z"))
        for refused in (pb.PutRequest(), pb.PutRequest(key=b"k", lease=7)):
            with pytest.raises(grpc.aio.AioRpcError):
                await kv.Put(refused)
        with pytest.raises(grpc.aio.AioRpcError):
            await kv.Compact(pb.CompactionRequest(revision=10**6))
        granted = await lease.LeaseGrant(pb.LeaseGrantRequest(TTL=60))
        keep = lease.LeaseKeepAlive()
        await keep.write(pb.LeaseKeepAliveRequest(ID=granted.ID))
        await keep.read()
        watch = channel.stream_stream("/etcdserverpb.Watch/Watch")()
        create = pb.WatchCreateRequest(key=b"k", start_revision=2)
        await watch.write(pb.WatchRequest(create_request=create).SerializeToString())
        await watch.read()
        await watch.read()
        watch.cancel()


async def _gone(transport: Http2Transport) -> None:
    """Wait until the server has heard of the end of every connection."""
    while transport.stats()["connections"]:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


async def test_calls_and_connections_leave_no_cycles(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/grpc.sock"
    options = ServeOptions("memory://", (f"unix://{tmp_path}/grpc.sock",))
    transport = Http2Transport(Limits())
    async with Shim(options, transport=transport):
        await _use(path)  # what is made once
        await _gone(transport)
        with cyclic_garbage() as found:
            for _ in range(3):
                await _use(path)
            await _gone(transport)
    assert not found
