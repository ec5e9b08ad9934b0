"""etcdserverpb.Watch: the reading half of a watch stream."""

from __future__ import annotations

import asyncio

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.errors import Compacted, ShimError
from datastore.shim.mvcc.keyrange import KeyRange
from datastore.shim.replica import Replica
from datastore.shim.rpc.service import Desk
from datastore.shim.rpc.watch_stream import EmptyWatchRange, ResponseStream
from datastore.shim.transport.api import Call
from datastore.shim.watch.hub import Hub
from datastore.shim.watch.watcher import WatchSpec


class WatchService:
    """Many watchers a stream; what fails is one watcher, never the stream."""

    def __init__(self, desk: Desk, replica: Replica, hub: Hub) -> None:
        self._headers = desk.headers
        self._replica = replica
        self._hub = hub
        desk.stream("/etcdserverpb.Watch/Watch", self.watch)

    async def watch(self, call: Call) -> None:
        """Serve one stream until the client ends the call."""
        stream = ResponseStream(call, self._headers, self._hub)
        try:
            while (body := await call.recv()) is not None:
                self._take(stream, pb.WatchRequest.FromString(body))
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

    def _create(self, stream: ResponseStream, request: pb.WatchCreateRequest) -> None:
        try:
            spec = _to_spec(request)
            watch_id = stream.take_id(request.watch_id)
        except ShimError as error:
            stream.refused(error)
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
    key = request.key or b"\x00"
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
