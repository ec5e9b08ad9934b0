"""etcdserverpb.Watch: the reading half of a watch stream."""

from __future__ import annotations

import asyncio
from typing import Final

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.errors import Compacted, RequestError, ShimError
from datastore.shim.mvcc.keyrange import KeyRange
from datastore.shim.replica import Replica
from datastore.shim.rpc.service import Desk
from datastore.shim.rpc.status import to_rpc_error
from datastore.shim.rpc.watch_stream import EmptyWatchRange, ResponseStream
from datastore.shim.transport.api import Call
from datastore.shim.watch.hub import Hub
from datastore.shim.watch.watcher import WatchSpec

FIRST_KEY: Final = b"\x00"
"""What an empty key stands for."""


class WatchService:
    """Many watchers a stream; what fails is one watcher, never the stream."""

    def __init__(self, desk: Desk, replica: Replica, hub: Hub) -> None:
        self._headers = desk.headers
        self._guard = desk.guard
        self._replica = replica
        self._hub = hub
        desk.stream("/etcdserverpb.Watch/Watch", self.watch)

    async def watch(self, call: Call) -> None:
        """Serve one stream until the client ends the call."""
        stream = ResponseStream(call, self._headers, self._hub)
        try:
            while (body := await call.recv()) is not None:
                request = pb.WatchRequest.FromString(body)
                if self._guard.enabled and request.HasField("create_request"):
                    await self._create_permitted(call, stream, request.create_request)
                else:
                    self._take(stream, request)
                if stream.pending > self._hub.stream_bytes:
                    # Who asks without reading the answers is not listened to.
                    await call.drained()
                    stream.pending = 0
            # Half-closing ends the requests, not the events (contract trap 58).
            await asyncio.get_running_loop().create_future()
        finally:
            stream.close()

    def _take(self, stream: ResponseStream, request: pb.WatchRequest) -> None:
        match request.WhichOneof("request_union"):
            case "create_request":
                self._create(stream, request.create_request)
            case "cancel_request":
                self._cancel(stream, request.cancel_request.watch_id)
            case "progress_request":
                self._request_progress(stream)
            case _:
                pass  # etcd ignores what it does not know

    def _request_progress(self, stream: ResponseStream) -> None:
        """Ask the hub, once all is applied that was committed before the request.

        Only the request waits for that; whatever else comes on the stream does not.
        """
        if not self._replica.shared:
            self._hub.request_progress(stream)
        else:
            stream.ask_when(self._replica.read_index)

    async def _create_permitted(
        self, call: Call, stream: ResponseStream, request: pb.WatchCreateRequest
    ) -> None:
        """Create a watcher whose keys the caller may read now; later nobody asks (etcd).

        What is refused here says why as a client's gRPC library does, unlike other refusals.
        """
        try:
            if request.start_revision >= 0:
                who = await self._guard.identify(call)
                key = request.key or FIRST_KEY
                self._replica.store.auth.check_read(who, key, request.range_end)
        except RequestError as error:
            refusal = to_rpc_error(error)
            code = refusal.code.name.title().replace("_", "")
            stream.refused(f"rpc error: code = {code} desc = {refusal.message}")
        else:
            self._create(stream, request)

    def _create(self, stream: ResponseStream, request: pb.WatchCreateRequest) -> None:
        try:
            spec = _to_spec(request)
            watch_id = stream.take_id(request.watch_id)
        except ShimError as error:
            stream.refused(error.text)
            return
        watcher = self._hub.watch(spec, stream, watch_id)
        stream.watchers[watch_id] = watcher
        stream.created(watcher)

    def _cancel(self, stream: ResponseStream, watch_id: int) -> None:
        watcher = stream.watchers.pop(watch_id, None)
        if watcher is not None:
            self._hub.cancel(watcher)
            stream.canceled_by_client(watch_id)


def _to_spec(request: pb.WatchCreateRequest) -> WatchSpec:
    key = request.key or FIRST_KEY
    if request.start_revision < 0:
        raise Compacted
    if KeyRange.from_wire(key, request.range_end).is_empty:
        raise EmptyWatchRange
    filters = set(request.filters)
    return WatchSpec(
        key=key,
        end=request.range_end,
        start_revision=request.start_revision,
        prev_kv=request.prev_kv,
        no_put=pb.WatchCreateRequest.NOPUT in filters,
        no_delete=pb.WatchCreateRequest.NODELETE in filters,
        progress_notify=request.progress_notify,
        fragment=request.fragment,
    )
