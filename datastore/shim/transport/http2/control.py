"""Frames that carry no request: settings, windows, pings, resets, and what is ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from datastore.shim.transport.http2 import frames, settings
from datastore.shim.transport.http2.budget import Budget
from datastore.shim.transport.http2.frames import ConnectionFault, StreamFault

if TYPE_CHECKING:
    from datastore.shim.transport.http2.connection import Connection

_CONTROL_LIMIT: Final = 5_000
_PING_LIMIT: Final = 200
_PONG_HEAD: Final = frames.head(8, frames.PING, frames.ACK, 0)
_MASK: Final = frames.MAX_STREAM_ID


class Control:
    """Acts on control frames."""

    __slots__ = ("_connection", "_noise", "_pinged", "_pings", "ready")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._noise = Budget(_CONTROL_LIMIT, "frames that do nothing")
        self._pings = Budget(_PING_LIMIT, "pings")
        self._pinged = 0.0
        self.ready = False
        """Whether the peer's settings have come."""

    def take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Act on one frame; a kind that nobody knows is ignored.

        Raises:
            ConnectionFault: it breaks a rule, or there are too many of its kind.
            StreamFault: it breaks a rule that concerns one stream.
        """
        take = self._TAKERS.get(kind)
        if take is None:
            self.spend()
        else:
            take(self, flags, stream_id, payload)

    def spend(self) -> None:
        """Count a frame that does nothing."""
        self._noise.spend(self._connection.shared.loop.time())

    def _take_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not 4 bytes")
        increment = frames.word(payload) & _MASK
        sender = self._connection.sender
        if stream_id == 0:
            if not increment:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            sender.widen(increment)
            return
        self._check_not_idle(stream_id, "WINDOW_UPDATE")
        if not increment:
            raise StreamFault(stream_id, frames.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        call = self._connection.calls.get(stream_id)
        if call is not None:
            sender.widen_stream(call.obtain_flow(), increment)

    def _take_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "RST_STREAM is not 4 bytes")
        self._check_not_idle(stream_id, "RST_STREAM")
        connection = self._connection
        connection.cut.pop(stream_id, None)
        if not connection.cancelled(stream_id):
            self.spend()

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PING is not 8 bytes")
        connection = self._connection
        if flags & frames.ACK:
            connection.pong(payload)
            self.spend()
            return
        connection.sender.control(_PONG_HEAD + payload)
        shared = connection.shared
        now = shared.loop.time()
        # grpc-go pings with each batch of DATA it gets, to measure; gRPC forgives those.
        if connection.sender.answered:
            connection.sender.answered = False
            self._pings.forgive()
        elif now - self._pinged < shared.limits.min_ping:
            self._pings.spend(now)
        self._pinged = now

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS on a stream")
        self.spend()
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "SETTINGS ACK with a payload")
            if not self.ready:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS ACK comes first")
            return
        sender = self._connection.sender
        sender.apply(settings.parse(payload, sender.peer))
        sender.control(frames.head(0, frames.SETTINGS, frames.ACK, 0))
        self.ready = True

    def _take_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Let the client go: it closes the connection when its calls are done."""
        self.spend()
        if stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "GOAWAY is shorter than 8 bytes")

    def _take_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Check and ignore a deprecated frame."""
        self.spend()
        if not stream_id:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            raise self._fault(stream_id, frames.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes")
        if frames.word(payload) & _MASK == stream_id:
            raise self._fault(stream_id, frames.PROTOCOL_ERROR, "stream depends on itself")

    def _take_push(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise ConnectionFault(frames.PROTOCOL_ERROR, "a client does not push")

    def _fault(self, stream_id: int, code: int, text: str) -> StreamFault | ConnectionFault:
        """Return the fault of a stream: what is not open must not be reset (RFC 9113 6.4)."""
        if stream_id in self._connection.calls:
            return StreamFault(stream_id, code, text)
        return ConnectionFault(code, text)

    def _check_not_idle(self, stream_id: int, what: str) -> None:
        if stream_id > self._connection.last_id or not stream_id & 1:
            raise ConnectionFault(frames.PROTOCOL_ERROR, f"{what} on idle stream {stream_id}")

    _TAKERS: Final = {
        frames.PRIORITY: _take_priority,
        frames.RST_STREAM: _take_reset,
        frames.SETTINGS: _take_settings,
        frames.PUSH_PROMISE: _take_push,
        frames.PING: _take_ping,
        frames.GOAWAY: _take_goaway,
        frames.WINDOW_UPDATE: _take_window_update,
    }
