"""A small asynchronous etcd client over the generated messages, for tests of the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb

Answer = TypeVar("Answer", bound=Message)
Metadata = Sequence[tuple[str, str | bytes]]
Code = grpc.StatusCode
SECONDS = 30.0
"""How long anything that must come may take."""


class Refusal(NamedTuple):
    """An error as a client sees it."""

    code: grpc.StatusCode
    text: str


COMPACTED = Refusal(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
FUTURE = Refusal(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
NO_KEY = Refusal(Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
KEY_NOT_FOUND = Refusal(Code.INVALID_ARGUMENT, "etcdserver: key not found")
VALUE_PROVIDED = Refusal(Code.INVALID_ARGUMENT, "etcdserver: value is provided")
LEASE_PROVIDED = Refusal(Code.INVALID_ARGUMENT, "etcdserver: lease is provided")
DUPLICATE_KEY = Refusal(Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
TOO_MANY_OPS = Refusal(Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
BAD_SORT = Refusal(Code.INVALID_ARGUMENT, "etcdserver: invalid sort option")
TOO_LARGE = Refusal(Code.INVALID_ARGUMENT, "etcdserver: request is too large")
NO_LEASE = Refusal(Code.NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXISTS = Refusal(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
TTL_TOO_LARGE = Refusal(Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
NO_SPACE = Refusal(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")


@contextmanager
def refused(refusal: Refusal) -> Iterator[None]:
    """Expect the code and the exact text."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        yield
    assert (error.value.code(), error.value.details()) == refusal


def prefix_end(prefix: bytes) -> bytes:
    """Return the range end that covers all keys with `prefix` (contract 2.2)."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\0"


def get_op(key: bytes, end: bytes = b"", **fields: Any) -> pb.RequestOp:
    """Build a range as a transaction's operation."""
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, range_end=end, **fields))


def put_op(key: bytes, value: bytes = b"", **fields: Any) -> pb.RequestOp:
    """Build a put as a transaction's operation."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, **fields))


def delete_op(key: bytes, end: bytes = b"", **fields: Any) -> pb.RequestOp:
    """Build a delete as a transaction's operation."""
    request = pb.DeleteRangeRequest(key=key, range_end=end, **fields)
    return pb.RequestOp(request_delete_range=request)


def txn_op(
    compare: Sequence[pb.Compare] = (),
    success: Sequence[pb.RequestOp] = (),
    failure: Sequence[pb.RequestOp] = (),
) -> pb.RequestOp:
    """Build a nested transaction."""
    return pb.RequestOp(
        request_txn=pb.TxnRequest(compare=compare, success=success, failure=failure)
    )


TARGETS = {"version": 0, "create_revision": 1, "mod_revision": 2, "value": 3, "lease": 4}
RESULTS = {"=": 0, ">": 1, "<": 2, "!=": 3}


def when(key: bytes, result: str = "=", end: bytes = b"", **target: Any) -> pb.Compare:
    """Build a compare: `when(key, ">", mod_revision=3)`."""
    ((name, _),) = target.items()
    fields: dict[str, Any] = {"target": TARGETS[name], "result": RESULTS[result], **target}
    return pb.Compare(key=key, range_end=end, **fields)


CALLED: set[str] = set()
"""The paths of the RPCs that were called since somebody cleared it (support_table)."""


def _note_calls(channel: grpc.aio.Channel) -> None:
    for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
        setattr(channel, kind, partial(_note, getattr(channel, kind)))


def _note(make: Callable[..., Any], path: str, *arguments: Any, **options: Any) -> Any:
    CALLED.add(path)
    return make(path, *arguments, **options)


class WatchStream:
    """One Watch RPC; a task reads it all the time, so that waiting in vain costs nothing."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._arrived: asyncio.Queue[pb.WatchResponse | BaseException | None] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                self._arrived.put_nowait(response)
            self._arrived.put_nowait(None)
        except grpc.aio.AioRpcError as error:
            self._arrived.put_nowait(error)

    async def send(self, request: pb.WatchRequest) -> None:
        """Send any request."""
        await self._call.write(request)

    async def create(self, key: bytes, end: bytes = b"", **fields: Any) -> pb.WatchResponse:
        """Create a watch and return its first response."""
        create = pb.WatchCreateRequest(key=key, range_end=end, **fields)
        await self.send(pb.WatchRequest(create_request=create))
        return await self.next()

    async def cancel(self, watch_id: int) -> None:
        """Cancel a watch; the answer comes among the others."""
        cancel = pb.WatchCancelRequest(watch_id=watch_id)
        await self.send(pb.WatchRequest(cancel_request=cancel))

    async def request_progress(self) -> None:
        """Ask for a progress response."""
        await self.send(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def half_close(self) -> None:
        """Say that no request will follow."""
        await self._call.done_writing()

    async def next(self, seconds: float = SECONDS) -> pb.WatchResponse:
        """Return the next response; raise what ended the stream."""
        item = await asyncio.wait_for(self._arrived.get(), seconds)
        if isinstance(item, pb.WatchResponse):
            return item
        if item is None:
            raise EOFError("the server ended the watch stream")
        raise item

    async def events(self, count: int) -> list[kv_pb2.Event]:
        """Return the next `count` events, whatever the responses they come in."""
        found: list[kv_pb2.Event] = []
        while len(found) < count:
            found += (await self.next()).events
        assert len(found) == count
        return found

    async def progress(self) -> pb.WatchResponse:
        """Return the answer to a progress request, asked again until the server grants it."""
        while True:
            await self.request_progress()
            with suppress(TimeoutError):
                return await self.next(0.5)

    async def close(self) -> None:
        """End the RPC."""
        self._call.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader


class Client:
    """One connection."""

    def __init__(
        self,
        target: str,
        *,
        metadata: Metadata = (),
        options: Sequence[tuple[str, Any]] = (),
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.metadata = metadata
        settings = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.enable_http_proxy", 0),
            *options,
        ]
        self.channel = (
            grpc.aio.secure_channel(target, credentials, options=settings)
            if credentials
            else grpc.aio.insecure_channel(target, options=settings)
        )
        _note_calls(self.channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close(None)

    async def call(
        self, method: str, request: Message | bytes, answer: type[Answer], **options: Any
    ) -> Answer:
        """Call a unary method by its path below `etcdserverpb.`, or by its whole path."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        raw = self.channel.unary_unary(path(method))
        options = {"timeout": SECONDS, "metadata": tuple(self.metadata), **options}
        return answer.FromString(await raw(body, **options))

    async def put(self, key: bytes, value: bytes = b"", **fields: Any) -> pb.PutResponse:
        """Put one key."""
        request = pb.PutRequest(key=key, value=value, **fields)
        return await self.call("KV/Put", request, pb.PutResponse)

    async def get(self, key: bytes, end: bytes = b"", **fields: Any) -> pb.RangeResponse:
        """Range over keys."""
        request = pb.RangeRequest(key=key, range_end=end, **fields)
        return await self.call("KV/Range", request, pb.RangeResponse)

    async def count(self, key: bytes, end: bytes = b"") -> int:
        """Count keys."""
        return (await self.get(key, end, count_only=True)).count

    async def list(self, prefix: bytes, **fields: Any) -> pb.RangeResponse:
        """Range over a prefix."""
        return await self.get(prefix, prefix_end(prefix), **fields)

    async def stream(
        self, key: bytes, end: bytes = b"", **fields: Any
    ) -> AsyncIterator[pb.RangeResponse]:
        """Range over keys in chunks."""
        request = pb.RangeRequest(key=key, range_end=end, **fields)
        raw = self.channel.unary_stream(
            path("KV/RangeStream"), response_deserializer=pb.RangeStreamResponse.FromString
        )
        options: dict[str, Any] = {"timeout": 6 * SECONDS, "metadata": tuple(self.metadata)}
        async for chunk in raw(request.SerializeToString(), **options):
            yield chunk.range_response

    async def delete(self, key: bytes, end: bytes = b"", **fields: Any) -> pb.DeleteRangeResponse:
        """Delete a range."""
        request = pb.DeleteRangeRequest(key=key, range_end=end, **fields)
        return await self.call("KV/DeleteRange", request, pb.DeleteRangeResponse)

    async def txn(
        self,
        compare: Sequence[pb.Compare] = (),
        success: Sequence[pb.RequestOp] = (),
        failure: Sequence[pb.RequestOp] = (),
    ) -> pb.TxnResponse:
        """Run a transaction."""
        request = pb.TxnRequest(compare=compare, success=success, failure=failure)
        return await self.call("KV/Txn", request, pb.TxnResponse)

    async def compact(self, revision: int, *, physical: bool = False) -> pb.CompactionResponse:
        """Compact the history."""
        request = pb.CompactionRequest(revision=revision, physical=physical)
        return await self.call("KV/Compact", request, pb.CompactionResponse)

    async def revision(self) -> int:
        """Return the store's current revision."""
        return (await self.get(b"\0")).header.revision

    async def grant(self, ttl: int, lease: int = 0) -> pb.LeaseGrantResponse:
        """Grant a lease."""
        request = pb.LeaseGrantRequest(TTL=ttl, ID=lease)
        return await self.call("Lease/LeaseGrant", request, pb.LeaseGrantResponse)

    async def revoke(self, lease: int) -> pb.LeaseRevokeResponse:
        """Revoke a lease."""
        request = pb.LeaseRevokeRequest(ID=lease)
        return await self.call("Lease/LeaseRevoke", request, pb.LeaseRevokeResponse)

    async def time_to_live(self, lease: int, *, keys: bool = False) -> pb.LeaseTimeToLiveResponse:
        """Ask how long a lease has left."""
        request = pb.LeaseTimeToLiveRequest(ID=lease, keys=keys)
        return await self.call("Lease/LeaseTimeToLive", request, pb.LeaseTimeToLiveResponse)

    async def leases(self) -> Sequence[int]:
        """Return the ids of all leases."""
        request = pb.LeaseLeasesRequest()
        answer = await self.call("Lease/LeaseLeases", request, pb.LeaseLeasesResponse)
        return [lease.ID for lease in answer.leases]

    async def keep_alive(self, *leases: int) -> Sequence[pb.LeaseKeepAliveResponse]:
        """Renew leases in turn on one stream."""
        raw = self.channel.stream_stream(
            path("Lease/LeaseKeepAlive"),
            request_serializer=pb.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=pb.LeaseKeepAliveResponse.FromString,
        )
        call: Any = raw(timeout=SECONDS, metadata=tuple(self.metadata))
        answers = []
        for lease in leases:
            await call.write(pb.LeaseKeepAliveRequest(ID=lease))
            answers.append(await call.read())
        call.cancel()
        return answers

    @asynccontextmanager
    async def watch(self, **options: Any) -> AsyncIterator[WatchStream]:
        """Open a watch stream."""
        raw = self.channel.stream_stream(
            path("Watch/Watch"),
            request_serializer=serialize,
            response_deserializer=pb.WatchResponse.FromString,
        )
        stream = WatchStream(raw(metadata=tuple(self.metadata), **options))
        try:
            yield stream
        finally:
            await stream.close()


def serialize(request: Message | bytes) -> bytes:
    """Let a test send bytes of its own making."""
    return request if isinstance(request, bytes) else request.SerializeToString()


async def until_none(read: Callable[[], Awaitable[Any]], pause: float = 0.1) -> None:
    """Read again and again until what is read is empty: how tests wait for an expiry."""
    while await read():  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(pause)


def path(method: str) -> str:
    """Return the HTTP/2 path of a method."""
    return method if method.startswith("/") else f"/etcdserverpb.{method}"
