"""Everything that is received on one connection: frames are cut, checked and acted upon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from datastore.shim.transport.api import Code, RpcError
from datastore.shim.transport.http2 import frames, messages
from datastore.shim.transport.http2.control import Control
from datastore.shim.transport.http2.frames import ConnectionFault, StreamFault
from datastore.shim.transport.http2.headers import HeadReader, Malformed, check_trailers
from datastore.shim.transport.http2.hpack import HeaderListTooLarge, HpackError
from datastore.shim.transport.http2.plain import PlainCall
from datastore.shim.transport.http2.streaming import StreamCall
from datastore.shim.transport.http2.unary import UnaryCall

if TYPE_CHECKING:
    from datastore.shim.transport.http2.connection import Connection
    from datastore.shim.transport.http2.headers import Head

CONNECTION_WINDOW: Final = 16 << 20
_FRAMES_A_TURN: Final = 512
"""After so many the other connections have their turn."""
_BLOCK_LIMIT: Final = 32 << 10
_CONTINUATIONS: Final = 16
_NEXT: Final = 2
"""Clients have every other number, and leave none out usually."""
_LEAST_CALL: Final = 14
"""Head of a DATA frame and the prefix of a message."""
_SMALL: Final = 256
"""A frame that carries less, to no end, costs more than it is worth."""
_WRONG_LENGTH: Final = "content-length is not what was sent"
_MASK: Final = frames.MAX_STREAM_ID


class Receiver:
    """The receiving half of a connection."""

    __slots__ = (
        "_block", "_connection", "_control", "_heads", "_rest", "_started", "_unacknowledged",
        "more",
    )  # fmt: skip

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heads = HeadReader(connection.shared.methods)
        self._rest = b""
        self._block: _Block | None = None
        self._control = Control(connection)
        self._unacknowledged = 0
        self._started = False
        self.more = False
        """Whether whole frames are left for the next turn of the loop."""

    def take(self, data: bytes) -> None:
        """Act on what has arrived. Hot.

        Raises:
            ConnectionFault: the connection has to end.
        """
        if self._rest:
            data = self._rest + data
        position = 0
        if not self._started:
            position = self._take_preface(data)
        self.more = False
        self._rest = data[self._cut_frames(data, position) :]

    def close(self) -> None:
        """Let go of the connection, which is gone, so that it is no cycle (serving.py)."""
        self.more = False
        del self._connection, self._control

    @property
    def ready(self) -> bool:
        """Whether the client has said what it speaks, and its settings."""
        return self._control.ready

    def _take_preface(self, data: bytes) -> int:
        preface = frames.PREFACE
        if data[: len(preface)] != preface[: len(data)]:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "this is not HTTP/2")
        if len(data) < len(preface):
            return 0
        self._started = True
        return len(preface)

    def _cut_frames(self, data: bytes, position: int) -> int:
        """Act on each whole frame; return where the rest begins. Hot."""
        end = len(data)
        if not self._started:
            return 0
        connection = self._connection
        left = _FRAMES_A_TURN
        while end - position >= frames.HEAD_SIZE:
            high, low, kind, flags, stream_id = frames.unpack_head(data, position)
            length = high << 8 | low
            if length > frames.MAX_FRAME:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "frame is larger than allowed")
            begin = position + frames.HEAD_SIZE
            after = begin + length
            if after > end:
                break
            left -= 1
            if left < 0:
                self.more = True
                break
            position = after
            if (
                kind == frames.HEADERS
                and flags == frames.END_HEADERS
                and _MASK >= stream_id > connection.last_id
                and stream_id & 1
                and self._block is None
                and self._control.ready
            ):
                position = self._take_call(data, begin, after, stream_id)
                continue
            try:
                self._take_frame(kind, flags, stream_id & _MASK, data[begin:after])
            except StreamFault as fault:
                self._reset(fault)
            if connection.closing:
                break
        return position

    def _take_call(self, data: bytes, begin: int, after: int, stream_id: int) -> int:
        """Begin a call; return where the frames go on. Hot.

        What nearly every call is, one HEADERS and one DATA with the whole request, is served
        here without the stream ever being recorded.
        """
        connection = self._connection
        if stream_id - connection.last_id > _NEXT:
            connection.skip(stream_id)
        connection.last_id = stream_id
        try:
            head, timeout = self._heads.read(data[begin:after])
        except (HpackError, Malformed) as error:
            self._refuse_block(stream_id, error)
            return after
        if head.direct is not None and timeout != 0.0 and len(data) - after >= _LEAST_CALL:
            high, low, kind, flags, same, packed, size = frames.unpack_message_head(data, after)
            length = high << 8 | low
            position: int = after + frames.HEAD_SIZE + length
            if (
                kind == frames.DATA
                and flags == frames.END_STREAM
                and same == stream_id
                and packed == 0
                and size + 5 == length
                and length <= frames.MAX_FRAME
                and position <= len(data)
                and connection.admits()
            ):
                self._unacknowledged += length
                if self._unacknowledged >= CONNECTION_WINDOW // 2:
                    self._acknowledge()
                connection.serve(
                    UnaryCall(connection, head, stream_id, timeout),
                    data[after + _LEAST_CALL : position],
                )
                return position
        self._open(head, timeout, stream_id, end=False)
        return after

    def _take_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a header block is interrupted")
        if not self._control.ready and kind != frames.SETTINGS:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        take = self._TAKERS.get(kind)
        if take is None:
            self._control.take(kind, flags, stream_id, payload)
        else:
            take(self, flags, stream_id, payload)

    # Header blocks

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        payload = frames.without_padding(payload, flags)
        depends_on_itself = False
        if flags & frames.HAS_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "HEADERS without its priority")
            depends_on_itself = frames.word(payload) & _MASK == stream_id
            payload = payload[5:]
        block = _Block(stream_id, flags, payload, depends_on_itself=depends_on_itself)
        if flags & frames.END_HEADERS:
            self._take_block(block)
        else:
            self._block = block

    def _take_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None or block.stream_id != stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION of nothing")
        block.parts.append(payload)
        block.size += len(payload)
        if block.size > _BLOCK_LIMIT or len(block.parts) > _CONTINUATIONS:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "header block too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._take_block(block)

    def _take_block(self, block: _Block) -> None:
        """Act on a whole block.

        Each is decoded, also of streams that are no more: it may change what the next one means.
        """
        stream_id = block.stream_id
        raw = b"".join(block.parts)
        end = bool(block.flags & frames.END_STREAM)
        if stream_id <= self._connection.last_id:
            self._take_trailers(stream_id, raw, end=end)
            return
        if stream_id - self._connection.last_id > _NEXT:
            self._connection.skip(stream_id)
        self._connection.last_id = stream_id
        try:
            head, timeout = self._heads.read(raw)
        except (HpackError, Malformed) as error:
            self._refuse_block(stream_id, error)
            return
        if block.depends_on_itself:
            raise StreamFault(stream_id, frames.PROTOCOL_ERROR, "stream depends on itself")
        self._open(head, timeout, stream_id, end=end)

    def _take_trailers(self, stream_id: int, raw: bytes, *, end: bool) -> None:
        try:
            fields = self._heads.decoder.decode(raw)
        except HpackError as error:
            self._refuse_block(stream_id, error)
            return
        connection = self._connection
        call = connection.calls.get(stream_id)
        if call is None:
            if connection.was_skipped(stream_id):
                raise ConnectionFault(frames.PROTOCOL_ERROR, f"stream {stream_id} comes too late")
            if stream_id not in connection.cut:
                raise ConnectionFault(frames.STREAM_CLOSED, f"HEADERS on stream {stream_id}")
            self._control.spend()
            return
        if call.remote_closed:
            raise StreamFault(stream_id, frames.STREAM_CLOSED, "HEADERS behind the end")
        try:
            check_trailers(fields)
        except Malformed as error:
            self._refuse_block(stream_id, error)
            return
        if not end:
            raise StreamFault(stream_id, frames.PROTOCOL_ERROR, "trailers are not the end")
        self._feed(call, b"", end=True)

    def _refuse_block(self, stream_id: int, error: HpackError | Malformed) -> None:
        if isinstance(error, HeaderListTooLarge):
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, str(error))
        if isinstance(error, HpackError):
            raise ConnectionFault(frames.COMPRESSION_ERROR, str(error))
        self._reset(StreamFault(stream_id, frames.PROTOCOL_ERROR, str(error)))

    def _open(self, head: Head, timeout: float | None, stream_id: int, *, end: bool) -> None:
        """Begin a call that does not come in one piece."""
        connection = self._connection
        if end and head.content_length > 0:
            self._reset(StreamFault(stream_id, frames.PROTOCOL_ERROR, _WRONG_LENGTH))
            return
        if not connection.admits():
            connection.shared.stats["refused"] += 1
            self._reset(StreamFault(stream_id, frames.REFUSED_STREAM, "not now"))
            return
        if head.stream is not None and (timeout != 0.0 or head.plain):
            kind = PlainCall if head.plain else StreamCall
            streaming = kind(connection, head, stream_id, timeout)
            connection.calls[stream_id] = streaming
            streaming.open()
            streaming.start()
            if end:
                self._feed(streaming, b"", end=True)
            return
        call = UnaryCall(connection, head, stream_id, timeout)
        connection.calls[stream_id] = call
        call.receive()
        call.remote_closed = end
        if timeout == 0.0 and head.is_served:
            call.refuse(RpcError(Code.DEADLINE_EXCEEDED, "context deadline exceeded"))
        elif not head.is_served and (
            # A refusal of gRPC goes out at once (etcd-contract.md T42), for the client may be
            # waiting. What is not gRPC is heard to its end: it may still break HTTP/2's rules.
            end or (head.content_length < 0 and not head.http_status)
        ):
            call.decline()
        elif end:
            call.refuse(messages.truncated())
        else:
            call.open()

    # DATA

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._unacknowledged += len(payload)
        if self._unacknowledged >= CONNECTION_WINDOW // 2:
            self._acknowledge()
        call = self._connection.calls.get(stream_id)
        if not flags and call is not None and call.prompt and call.answer_now(payload):
            return
        data = frames.without_padding(payload, flags)
        end = bool(flags & frames.END_STREAM)
        if call is None:
            self._take_late_data(stream_id, len(data), end=end)
            return
        if call.remote_closed:
            raise StreamFault(stream_id, frames.STREAM_CLOSED, "DATA behind the end")
        if not data and not end:
            self._control.spend()
        if len(data) < len(payload) and not end:
            padding = len(payload) - len(data)
            self._connection.sender.control(frames.window_update(stream_id, padding))
        self._feed(call, data, end=end)

    def _feed(self, call: UnaryCall | StreamCall, data: bytes, *, end: bool) -> None:
        call.received += len(data)
        if end:
            call.remote_closed = True
            if call.head.content_length not in {-1, call.received}:
                raise StreamFault(call.stream_id, frames.PROTOCOL_ERROR, _WRONG_LENGTH)
        if call.done:
            return
        try:
            if data:
                call.feed(data)
            if end:
                call.half_close()
        except RpcError as error:
            call.abort(error)

    def _take_late_data(self, stream_id: int, size: int, *, end: bool) -> None:
        """Drop DATA of a stream that is no more; the client may not know yet."""
        if stream_id > self._connection.last_id or not stream_id & 1:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"DATA on idle stream {stream_id}")
        told = self._connection.cut.get(stream_id)
        if told is None:
            raise StreamFault(stream_id, frames.STREAM_CLOSED, "DATA on a closed stream")
        if size < _SMALL:
            self._control.spend()
        if not end and not told:
            self._reset(StreamFault(stream_id, frames.NO_ERROR, "answered already"))

    def _acknowledge(self) -> None:
        """Open the connection's window again: a slow stream must not hold up the others."""
        self._connection.sender.control(frames.window_update(0, self._unacknowledged))
        self._unacknowledged = 0

    def _reset(self, fault: StreamFault) -> None:
        self._connection.reset(fault.stream_id, fault.code)
        self._connection.remember_cut(fault.stream_id, told=True)

    _TAKERS: Final = {
        frames.DATA: _take_data,
        frames.HEADERS: _take_headers,
        frames.CONTINUATION: _take_continuation,
    }


class _Block:
    """A header block under way."""

    __slots__ = ("depends_on_itself", "flags", "parts", "size", "stream_id")

    def __init__(
        self, stream_id: int, flags: int, first: bytes, *, depends_on_itself: bool
    ) -> None:
        self.stream_id = stream_id
        self.flags = flags
        self.parts = [first]
        self.size = len(first)
        self.depends_on_itself = depends_on_itself
