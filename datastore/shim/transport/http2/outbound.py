"""Everything that is sent on one connection: windows, what waits for them, one write a turn."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from datastore.shim.transport.api import Body, Pieces
from datastore.shim.transport.http2 import frames, status
from datastore.shim.transport.http2.flow import STREAM_HIGH, Chunk, Flow, Ledger, Piece
from datastore.shim.transport.http2.frames import ConnectionFault, StreamFault
from datastore.shim.transport.http2.settings import PeerSettings

CONNECTION_HIGH: Final = 256 << 10
"""Bytes handed to the socket, above which the rest waits in its stream."""
PENDING_LIMIT: Final = 32 << 20
"""Bytes of answers that wait in one connection, above which its next calls wait."""
PENDING_LIMIT_OF_ALL: Final = 512 << 20
"""The same over all connections: above it a connection may have what waits, and no more."""
_KIND_AT: Final = 3
_QUANTUM: Final = 64 << 10
"""Bytes of one stream before it is another one's turn."""
_OVERHEAD: Final = 64
"""About what an answer takes beside its message."""
_TABLE_SIZE_ZERO: Final = b"\x20"

_PREFIX: Final = struct.Struct(">BI")
# Head of the answer's HEADERS, the block, the head of DATA with the prefix of the message.
_REPLY: Final = struct.Struct(f">5sI{len(status.RESPONSE)}sHBHIBI")
_REPLY_HEAD: Final = frames.head(len(status.RESPONSE), frames.HEADERS, frames.END_HEADERS, 0)[:5]
_TAIL: Final = struct.Struct(f">5sI{len(status.OK_TRAILERS)}s")
_TAIL_HEAD: Final = frames.head(
    len(status.OK_TRAILERS), frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 0
)[:5]
_pack_reply = _REPLY.pack
_pack_tail = _TAIL.pack


def _held_by(chunk: Chunk) -> int:
    """Return the bytes that a chunk keeps in memory: the rest of one keeps the whole."""
    return memoryview(chunk.obj).nbytes if isinstance(chunk, memoryview) else len(chunk)


def _ignore(*_: object) -> None:
    """Do nothing: the connection is gone, and is not held any longer."""


class Sender:
    """The sending half of a connection.

    Args:
        ledger: Of the server.
        write: Takes the bytes of one turn.
        schedule: Has `flush` called at the end of this turn of the loop.
        ended: Is told which stream has been sent to its end.
        eased: Is told, once after each `choke`, that there is room for more answers.
    """

    __slots__ = (
        "_block_prefix", "_choked", "_eased", "_ended", "_fast_size", "_flows", "_ledger",
        "_pieces", "_ready", "_schedule", "_size", "_write", "answered", "dirty", "paused", "peer",
        "pending", "window",
    )  # fmt: skip

    def __init__(
        self,
        ledger: Ledger,
        write: Callable[[bytes], object],
        schedule: Callable[[Sender], None],
        ended: Callable[[int], None],
        eased: Callable[[], object],
    ) -> None:
        self._ledger = ledger
        self._eased = eased
        self._choked = False
        self._write = write
        self._schedule = schedule
        self._ended = ended
        self.peer = PeerSettings()
        self.window = frames.DEFAULT_WINDOW
        self.pending = 0
        """Bytes that are kept for all streams: of a chunk all, until its last one is sent."""
        self.dirty = False
        """Whether `flush` is going to be called in this turn."""
        self.paused = False
        self.answered = False
        """Whether DATA or HEADERS have been sent since somebody reset this."""
        self._pieces: list[Piece] = []
        self._size = 0
        self._flows: dict[int, Flow] = {}
        self._ready: deque[Flow] = deque()
        self._block_prefix = b""
        # Largest message with its prefix that goes out without looking further, -1 for none.
        self._fast_size = frames.MAX_FRAME

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the client that it had better take that first. Hot."""
        return self.pending > PENDING_LIMIT or (
            self.pending > 0 and self._ledger.pending > PENDING_LIMIT_OF_ALL
        )

    @property
    def holds_ping(self) -> bool:
        """Whether all that would be written now is one PING. Hot."""
        return (
            self._size == frames.PING_SIZE
            and self._pieces[0][_KIND_AT] == frames.PING
            and not self._ready
        )

    def choke(self) -> None:
        """Ask to be told when it is not full any more."""
        self._choked = True

    def _take_off(self, size: int) -> None:
        self.pending -= size
        self._ledger.pending -= size
        if self._choked and not self.is_full:
            self._choked = False
            self._eased()

    def control(self, frame: bytes) -> None:
        """Send a frame that no window holds back."""
        self._pieces.append(frame)
        self._size += len(frame)
        if not self.dirty:
            self._schedule(self)

    def reply(self, stream_id: int, message: bytes) -> bool:
        """Send a whole answer, if windows and buffers let it go at once. Hot."""
        size = len(message) + 5
        if size > self._fast_size or size > self.window or self._size > CONNECTION_HIGH:
            return False
        self.window -= size
        self._size += size + _OVERHEAD
        self._pieces += (
            _pack_reply(
                _REPLY_HEAD, stream_id, status.RESPONSE,
                size >> 8, size & 255, 0, stream_id, 0, size - 5,
            ),
            message,
            _pack_tail(_TAIL_HEAD, stream_id, status.OK_TRAILERS),
        )  # fmt: skip
        self.answered = True
        if not self.dirty:
            self._schedule(self)
        return True

    def headers(self, stream_id: int, block: bytes, *, end: bool = False) -> None:
        """Send a header block; with `end` it ends the stream, which must have nothing pending."""
        self.control(self._header_frames(stream_id, block, end=end))
        self.answered = True
        if end:
            self._ended(stream_id)

    def _header_frames(self, stream_id: int, block: bytes, *, end: bool) -> bytes:
        if self._block_prefix:
            block, self._block_prefix = self._block_prefix + block, b""
            self._set_fast_size()
        limit = self.peer.max_frame
        flags = frames.END_STREAM if end else 0
        if len(block) <= limit:
            return (
                frames.head(len(block), frames.HEADERS, flags | frames.END_HEADERS, stream_id)
                + block
            )
        parts = [frames.head(limit, frames.HEADERS, flags, stream_id), block[:limit]]
        for at in range(limit, len(block), limit):
            part = block[at : at + limit]
            last = frames.END_HEADERS if at + limit >= len(block) else 0
            parts += frames.head(len(part), frames.CONTINUATION, last, stream_id), part
        return b"".join(parts)

    def open(self, stream_id: int) -> Flow:
        """Return the flow of a stream, which has sent no DATA yet."""
        flow = self._flows[stream_id] = Flow(stream_id, self.peer.initial_window)
        return flow

    def message(self, flow: Flow, message: bytes) -> int:
        """Send a message, or queue what cannot go now; return the bytes that wait. Hot."""
        size = len(message) + 5
        if (
            flow.pending == 0
            and size <= self._fast_size
            and size <= flow.window
            and size <= self.window
            and self._size <= CONNECTION_HIGH
        ):
            self.window -= size
            flow.window -= size
            self._size += size + _OVERHEAD
            self._pieces += (
                frames.pack_message_head(size >> 8, size & 255, 0, 0, flow.stream_id, 0, size - 5),
                message,
            )
            self.answered = True
            flow.moved = True
            if not self.dirty:
                self._schedule(self)
            return 0
        return self.enqueue(flow, message)

    def enqueue(self, flow: Flow, message: Body) -> int:
        """Queue a message, which may be too large to be one piece; return the bytes that wait."""
        self.queue(flow, _PREFIX.pack(0, len(message)))
        if message:
            self.queue(flow, message)
        return flow.pending

    def queue(self, flow: Flow, data: Body) -> None:
        """Queue bytes behind what waits on the stream."""
        flow.chunks.append(data)
        flow.pending += len(data)
        self.pending += len(data)
        self._ledger.pending += len(data)
        if flow.window > 0:
            self._make_ready(flow)

    def finish(self, flow: Flow, block: bytes) -> None:
        """Send trailers behind everything that waits on the stream; without any, only an end."""
        if flow.pending:
            flow.tail = block
        else:
            self._send_tail(flow.stream_id, block)

    def _send_tail(self, stream_id: int, block: bytes) -> None:
        self._flows.pop(stream_id, None)
        if block:
            self.headers(stream_id, block, end=True)
        else:
            self.control(frames.head(0, frames.DATA, frames.END_STREAM, stream_id))
            self._ended(stream_id)

    def drop(self, flow: Flow) -> None:
        """Forget a stream and what waits on it."""
        self._take_off(sum(_held_by(chunk) for chunk in flow.chunks))
        flow.pending = 0
        flow.chunks.clear()
        flow.tail = None
        self._flows.pop(flow.stream_id, None)
        flow.wake()

    def close(self) -> None:
        """Forget everything: the connection is gone."""
        for flow in list(self._flows.values()):
            self.drop(flow)
        self._write = self._ended = self._eased = _ignore
        self._pieces.clear()
        self._ready.clear()
        self.pause()

    def stuck(self, sweeps: int) -> list[int]:
        """Return the finished streams of which nothing was sent for so many sweeps."""
        found = []
        for flow in self._flows.values():
            flow.stalled = 0 if flow.moved or not flow.pending else flow.stalled + 1
            flow.moved = False
            if flow.stalled >= sweeps and flow.tail is not None:
                found.append(flow.stream_id)
        return found

    def widen(self, increment: int) -> None:
        """Take a WINDOW_UPDATE of the connection.

        Raises:
            ConnectionFault: the window is beyond 2^31-1.
        """
        self.window += increment
        if self.window > frames.MAX_WINDOW:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "connection window too large")
        if self._ready and not self.dirty and not self.paused:
            self._schedule(self)

    def widen_stream(self, flow: Flow, increment: int) -> None:
        """Take a WINDOW_UPDATE of a stream.

        Raises:
            StreamFault: the window is beyond 2^31-1.
        """
        flow.window += increment
        if flow.window > frames.MAX_WINDOW:
            text = "stream window too large"
            raise StreamFault(flow.stream_id, frames.FLOW_CONTROL_ERROR, text)
        if flow.pending and flow.window > 0:
            self._make_ready(flow)

    def apply(self, peer: PeerSettings) -> None:
        """Take the peer's settings; a new initial window moves the window of every stream.

        Raises:
            ConnectionFault: a stream's window is beyond 2^31-1.
        """
        delta = peer.initial_window - self.peer.initial_window
        if peer.header_table < self.peer.header_table:
            # We use no table; a strict decoder wants to be told so (RFC 7541 section 4.2).
            self._block_prefix = _TABLE_SIZE_ZERO
        self.peer = peer
        for flow in self._flows.values() if delta else ():
            flow.window += delta
            if flow.window > frames.MAX_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "stream window too large")
            if flow.pending and flow.window > 0:
                self._make_ready(flow)
        self._set_fast_size()

    def pause(self) -> None:
        """Stop sending messages: the socket takes no more."""
        self.paused = True
        self._set_fast_size()

    def resume(self) -> None:
        """Go on sending messages."""
        self.paused = False
        self._set_fast_size()
        self.flush()

    def flush(self) -> None:
        """Write what is to be sent. Hot."""
        self.dirty = True
        if self._ready and not self.paused:
            self._pump()
        self.dirty = False
        pieces = self._pieces
        if pieces:
            data = b"".join(pieces)
            pieces.clear()
            self._size = 0
            self._ledger.sent += len(data)
            self._write(data)
        if self._ready and self.window > 0 and not self.paused and not self.dirty:
            self._schedule(self)

    def _set_fast_size(self) -> None:
        if self.paused or self._block_prefix:
            self._fast_size = -1
        else:
            self._fast_size = min(self.peer.max_frame, self.peer.initial_window)

    def _make_ready(self, flow: Flow) -> None:
        if not flow.queued:
            flow.queued = True
            self._ready.append(flow)
        if not self.dirty and not self.paused:
            self._schedule(self)

    def _pump(self) -> None:
        """Send a quantum of each stream in turn, until a window or a buffer is full."""
        ready = self._ready
        while ready and self.window > 0 and self._size <= CONNECTION_HIGH:
            flow = ready.popleft()
            if flow.pending and flow.window > 0:
                self._emit(flow)
            if flow.pending and flow.window > 0:
                ready.append(flow)
            else:
                flow.queued = False

    def _emit(self, flow: Flow) -> None:
        """Send one quantum of a stream, and its end if nothing is left."""
        left = min(flow.pending, flow.window, self.window, _QUANTUM)
        flow.window -= left
        flow.pending -= left
        self.window -= left
        self._size += left
        flow.moved = True
        self.answered = True
        while left:
            size = min(left, self.peer.max_frame)
            left -= size
            self._pieces.append(frames.head(size, frames.DATA, 0, flow.stream_id))
            self._take(flow.chunks, size)
        if flow.waiters and flow.pending <= STREAM_HIGH:
            flow.wake()
        if not flow.pending and flow.tail is not None:
            block, flow.tail = flow.tail, None
            self._send_tail(flow.stream_id, block)

    def _take(self, chunks: deque[Chunk], size: int) -> None:
        """Move `size` bytes to what is written next."""
        while size:
            chunk = chunks.popleft()
            if isinstance(chunk, Pieces):
                rest, chunk = chunk, chunk.take()
                if rest:
                    chunks.appendleft(rest)
            if len(chunk) > size:
                view = memoryview(chunk)
                chunks.appendleft(view[size:])
                self._pieces.append(view[:size])
                return
            self._take_off(_held_by(chunk))
            self._pieces.append(chunk)
            size -= len(chunk)
