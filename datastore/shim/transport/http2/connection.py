"""One connection: what asyncio tells of it, its calls, and how it comes to its end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final, cast

from datastore.shim.transport.api import Code, Http1Connection, Peer, RpcError
from datastore.shim.transport.http2 import frames, settings
from datastore.shim.transport.http2.budget import Budget
from datastore.shim.transport.http2.frames import ConnectionFault
from datastore.shim.transport.http2.outbound import CONNECTION_HIGH, Sender
from datastore.shim.transport.http2.peer import find_peer
from datastore.shim.transport.http2.receiver import CONNECTION_WINDOW, Receiver
from datastore.shim.transport.http2.shared import Shared
from datastore.shim.transport.http2.streaming import StreamCall
from datastore.shim.transport.http2.unary import UnaryCall

log = logging.getLogger(__name__)

BACKLOG_LIMIT: Final = 16 << 20
"""Bytes of requests that may wait until earlier answers have been read."""
_PREFACE_BEGIN: Final = frames.PREFACE[:4]
_LARGE_READ: Final = 64 << 10
MAX_HEADER_LIST: Final = 16_384
_LINGER_SECONDS: Final = 0.5
_GAPS: Final = 16
_RESET_LIMIT: Final = 1_000
_HASTY_SECONDS: Final = 0.1
"""A call that is cancelled sooner than that, unanswered, may be an attack (rapid reset)."""
_DRAIN_PING: Final = b"draining"
_KEEPALIVE_PING: Final = b"are you?"


class Connection(asyncio.Protocol):
    """One connection.

    Attributes:
        calls: Streams that are not closed.
        running: Handlers under way, also of calls that are no more.
        held: Bytes of requests that wait for handlers.
        heard: Whether anything has come since the last sweep.
        http1: What serves the connection, once it was handed over.
        closing: It ends as soon as everything is written.
        last_id: The newest stream of the client.
        cut: Streams that we ended before the client did; True once it was told to stop.
    """

    peer: Peer
    secure: bool
    sender: Sender

    def __init__(self, shared: Shared, connections: set[Connection]) -> None:
        self.shared = shared
        self.calls: dict[int, UnaryCall | StreamCall] = {}
        self.running = 0
        self.held = 0
        self.heard = True
        self.closing = False
        self.draining = False
        self.last_id = 0
        self.cut: dict[int, bool] = {}
        self._greeted = False
        self.http1: Http1Connection | None = None
        self._yielded = False
        self._backlog: deque[tuple[UnaryCall, bytes]] = deque()
        self._skipped: deque[tuple[int, int]] = deque(maxlen=_GAPS)
        self.made_at = shared.loop.time()
        self.receiver = Receiver(self)
        self._connections = connections
        self._resets = Budget(_RESET_LIMIT, "streams that were reset")
        self._transport: asyncio.Transport | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared = self.shared
        self._transport = wire = cast("asyncio.Transport", transport)
        self.peer = find_peer(wire)
        self.secure = wire.get_extra_info("ssl_object") is not None
        self.sender = Sender(shared.ledger, wire.write, shared.schedule, self.ended, self._ease)
        if len(self._connections) >= shared.limits.max_connections:
            log.warning("too many connections", extra={"peer": self.peer.address})
            self.abort()
            return
        self._connections.add(self)
        shared.stats["connections"] += 1
        wire.set_write_buffer_limits(high=CONNECTION_HIGH)
        # Who may speak HTTP/1.1 is not to hear HTTP/2 before it has said what it speaks.
        if shared.http1 is None:
            self._greet()

    def _greet(self) -> None:
        shared = self.shared
        self._greeted = True
        ours = [
            (settings.MAX_CONCURRENT_STREAMS, shared.max_streams),
            (settings.INITIAL_WINDOW_SIZE, shared.stream_window),
            (settings.MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST),
        ]
        self.sender.control(frames.settings(ours))
        more = CONNECTION_WINDOW - frames.DEFAULT_WINDOW
        self.sender.control(frames.window_update(0, more))
        self.sender.flush()

    def data_received(self, data: bytes) -> None:
        """Act on what came, and answer with one write. Hot."""
        if self.closing:
            if self.http1 is not None:
                self.http1.data_received(data)
            return
        if not self._greeted and self._choose(data):
            return
        self.heard = True
        self.shared.ledger.received += len(data)
        sender = self.sender
        sender.dirty = True
        try:
            self.receiver.take(data)
        except ConnectionFault as fault:
            self.fail(fault)
        except Exception:
            log.exception("connection failed in a way that nobody foresaw")
            self.fail(ConnectionFault(frames.INTERNAL_ERROR, ""))
        if self.running and sender.holds_ping:
            # grpc-go pings behind each answer it gets, in one packet with its next request: what
            # answers a ping may wait for the end of the turn, and go with the answer to that.
            self.shared.schedule(sender)
        else:
            sender.flush()
        if self.receiver.more or len(data) >= _LARGE_READ:
            self._give_way()

    def _choose(self, data: bytes) -> bool:
        """Greet a client of HTTP/2, or hand the connection over; return whether it is."""
        make = self.shared.http1
        if make is None or _PREFACE_BEGIN.startswith(data[: len(_PREFACE_BEGIN)]):
            self._greet()
            return False
        assert self._transport is not None
        # For us the connection is over, but for looking after its end.
        self.closing = True
        self.http1 = make()
        self.http1.connection_made(self._transport)
        self.http1.data_received(data)
        return True

    def _give_way(self) -> None:
        """Let the other connections have their turn: uvloop would read on from this one."""
        if not self._yielded and not self.closing:
            self._yielded = True
            self._pause_reading()
            self.shared.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._yielded = False
        if self.receiver.more and not self.sender.paused:
            self.data_received(b"")
        self._resume_reading()

    def pause_writing(self) -> None:
        """Take nothing more from a peer that does not take our answers."""
        if self.http1 is not None:
            self.http1.pause_writing()
            return
        self.sender.pause()
        self._pause_reading()

    def resume_writing(self) -> None:
        if self.http1 is not None:
            self.http1.resume_writing()
            return
        self.sender.resume()
        if self.receiver.more:
            self._give_way()
        self._resume_reading()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._yielded or self.sender.paused:
            return
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._connections:
            self._connections.discard(self)
            self.shared.stats["connections"] -= 1
            self.shared.left.set()
        self.closing = True
        self._transport = None
        if self.http1 is not None:
            self.http1.connection_lost(error)
            self.http1 = None
        self._abandon_calls()
        self._backlog.clear()
        self.sender.close()
        self.receiver.close()

    # Calls

    def admits(self) -> bool:
        """Return whether a new call may begin. Hot."""
        limit = self.shared.max_streams
        return len(self.calls) < limit and self.running < limit and not self.draining

    def skip(self, stream_id: int) -> None:
        """Take note that the ids before a new stream are never used."""
        self._skipped.append((self.last_id, stream_id))

    def was_skipped(self, stream_id: int) -> bool:
        """Return whether an older stream never was; of many gaps the last are remembered."""
        return any(last < stream_id < found for last, found in self._skipped)

    def serve(self, call: UnaryCall, request: bytes) -> None:
        """Have a request answered, now or later. Hot."""
        if self.sender.pending and self.sender.is_full:
            self._postpone(call, request)
            return
        self.shared.calls += 1
        handler = call.head.unary
        assert handler is not None
        try:
            answer = handler(call, request)
        except Exception as error:  # noqa: BLE001 - the boundary that logs
            call.fail(error)
        else:
            call.give(answer)

    def _postpone(self, call: UnaryCall, request: bytes) -> None:
        """Let a request wait until the client has taken earlier answers."""
        try:
            if self.held > BACKLOG_LIMIT:
                raise _too_much()
            if call.stream_id not in self.calls:
                self.calls[call.stream_id] = call
                call.open()
                call.hold(len(request))
        except RpcError as error:
            call.refuse(error)
            return
        self._backlog.append((call, request))
        self.sender.choke()

    def _ease(self) -> None:
        self.shared.loop.call_soon(self._serve_backlog)

    def _serve_backlog(self) -> None:
        """Serve what waited for the client to take earlier answers."""
        while self._backlog and not self.sender.is_full:
            call, request = self._backlog.popleft()
            if not call.done:
                self.serve(call, request)
        if self._backlog:
            self.sender.choke()

    def ended(self, stream_id: int) -> None:
        """Take note that a stream has been sent to its end. Hot."""
        call = self.calls.pop(stream_id, None)
        if call is not None and not call.remote_closed:
            self.remember_cut(stream_id, told=False)
        if self.draining and not self.calls:
            self.shared.loop.call_soon(self.close)

    def cancelled(self, stream_id: int) -> bool:
        """Give up a call that the client has reset; return whether there was one.

        Raises:
            ConnectionFault: it does this too often.
        """
        call = self.calls.pop(stream_id, None)
        if call is None:
            return False
        self.shared.stats["resets"] += 1
        call.abandon()
        now = self.shared.loop.time()
        if not call.began and now - call.opened < _HASTY_SECONDS:
            self._resets.spend(now)
        if self.draining and not self.calls:
            self.shared.loop.call_soon(self.close)
        return True

    def reset(self, stream_id: int, code: int) -> None:
        """End a stream for a fault of the client.

        Raises:
            ConnectionFault: the client makes us do this too often.
        """
        self.give_up(stream_id, code)
        self._resets.spend(self.shared.loop.time())

    def give_up(self, stream_id: int, code: int) -> None:
        """End a stream from our side."""
        call = self.calls.pop(stream_id, None)
        if call is not None:
            call.abandon()
        self.shared.stats["resets"] += 1
        self.sender.control(frames.rst_stream(stream_id, code))
        if self.draining and not self.calls:
            self.shared.loop.call_soon(self.close)

    def remember_cut(self, stream_id: int, *, told: bool) -> None:
        """Remember that we ended a stream before the client did."""
        cut = self.cut
        cut[stream_id] = told
        if len(cut) > self.shared.max_streams:
            del cut[next(iter(cut))]

    def _abandon_calls(self) -> None:
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.abandon()

    # The end

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection, and say why."""
        log.info(
            "connection refused",
            extra={"peer": self.peer.address, "reason": fault.text, "code": fault.code},
        )
        self.shared.stats["goaways"] += 1
        self._abandon_calls()
        self.sender.control(frames.goaway(self.last_id, fault.code, fault.text))
        self._linger()

    def close(self) -> None:
        """Close when everything is written that can be."""
        self.closing = True
        self.sender.flush()
        self.sender.close()
        if self._transport is not None:
            self._transport.close()

    def _linger(self) -> None:
        """Close when the peer has had time to read why.

        To close a socket with something unread in it would take back what was written last.
        """
        self.closing = True
        self.sender.flush()
        self.sender.close()
        if self._transport is not None:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._transport.resume_reading()
            self.shared.loop.call_later(_LINGER_SECONDS, self.close)

    def abort(self) -> None:
        """Close at once."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def announce_end(self) -> None:
        """Ask the client to begin no more calls; those on their way are served still."""
        if self.http1 is not None:
            self.http1.shutdown()
            return
        if self.closing:
            return
        if not self._greeted:
            self.close()
            return
        self.sender.control(frames.goaway(frames.MAX_STREAM_ID, frames.NO_ERROR))
        self.sender.control(frames.ping(_DRAIN_PING))

    def end(self) -> None:
        """Begin no more calls, and close when those under way are done."""
        if self.draining or self.closing:
            return
        self.draining = True
        self.sender.control(frames.goaway(self.last_id, frames.NO_ERROR))
        if not self.calls:
            self.close()

    def end_now(self) -> None:
        """End the calls under way, and close."""
        self.end()
        for call in list(self.calls.values()):
            call.abort(RpcError(Code.UNAVAILABLE, "the server is shutting down"))
        self.close()

    # Keepalive

    def ask(self) -> None:
        """Ask whether the peer is still there."""
        self.sender.control(frames.ping(_KEEPALIVE_PING))

    def pong(self, payload: bytes) -> None:
        """Take the answer to a ping."""
        if payload == _DRAIN_PING:
            self.end()

    def unwritten(self) -> int:
        """Return the bytes that the socket has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()


def _too_much() -> RpcError:
    return RpcError(Code.RESOURCE_EXHAUSTED, "grpc: earlier answers wait to be read")
