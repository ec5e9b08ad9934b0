"""A look at every connection once a second: who is silent, who is stuck, who never began."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from typing import Final

from datastore.shim.transport.api import Http1Connection
from datastore.shim.transport.http2.connection import Connection
from datastore.shim.transport.http2.frames import CANCEL
from datastore.shim.transport.http2.shared import Shared

HANDSHAKE_SECONDS: Final = 10.0
_EVERY: Final = 1.0
_STREAM_SWEEPS: Final = 10
"""Streams are looked at in every tenth sweep."""
_STALLS: Final = 6
"""Such looks without progress that end a stream whose answer is complete: a minute."""
_WRITE_SECONDS: Final = 60.0
"""How long a peer may take nothing at all of what is written to it."""
_CLOSE_SECONDS: Final = 10.0
_HTTP1_SECONDS: Final = 310.0
"""How long a connection of HTTP/1.1 may have no request: etcd waits five minutes for one."""


class Watch:
    """What is known of one connection from sweep to sweep."""

    __slots__ = ("asked_at", "closing_at", "heard_at", "unwritten", "wrote_at")

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.asked_at = 0.0
        self.closing_at = 0.0
        self.unwritten = 0
        self.wrote_at = now


class Sweeper:
    """Ends connections and streams that only take up room."""

    def __init__(self, shared: Shared, connections: AbstractSet[Connection]) -> None:
        self._shared = shared
        self._connections = connections
        self._watches: dict[Connection, Watch] = {}
        self._sweeps = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Sweep from now on."""
        if self._timer is None:
            self._timer = self._shared.loop.call_later(_EVERY, self._again)

    def stop(self) -> None:
        """Sweep no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self) -> None:
        self._timer = self._shared.loop.call_later(_EVERY, self._again)
        self.sweep(self._shared.loop.time())

    def sweep(self, now: float) -> None:
        """Look at every connection."""
        self._sweeps += 1
        watches, self._watches = self._watches, {}
        for connection in list(self._connections):
            watch = watches.get(connection) or Watch(now)
            self._watches[connection] = watch
            if connection.http1 is not None:
                self._look_at_http1(connection, connection.http1, watch, now)
                continue
            if connection.closing:
                self._look_at_end(connection, watch, now)
                continue
            if not connection.receiver.ready:
                if now - connection.made_at > HANDSHAKE_SECONDS:
                    connection.abort()
                continue
            self._look_at_writing(connection, watch, now)
            self._look_at_silence(connection, watch, now)
            if self._sweeps % _STREAM_SWEEPS == 0 and connection.sender.pending:
                for stream_id in connection.sender.stuck(_STALLS):
                    connection.give_up(stream_id, CANCEL)

    def _look_at_end(self, connection: Connection, watch: Watch, now: float) -> None:
        watch.closing_at = watch.closing_at or now
        if now - watch.closing_at > _CLOSE_SECONDS:
            connection.abort()

    def _look_at_http1(
        self, connection: Connection, http1: Http1Connection, watch: Watch, now: float
    ) -> None:
        """End a connection without a request, or whose answer nobody reads."""
        unwritten = connection.unwritten()
        is_stuck = unwritten > 0 and unwritten == watch.unwritten
        watch.unwritten = unwritten
        if http1.busy and not is_stuck:
            watch.wrote_at = now
        elif now - watch.wrote_at > (_WRITE_SECONDS if is_stuck else _HTTP1_SECONDS):
            connection.abort()

    def _look_at_writing(self, connection: Connection, watch: Watch, now: float) -> None:
        unwritten = connection.unwritten()
        if not connection.sender.paused or unwritten != watch.unwritten:
            watch.unwritten = unwritten
            watch.wrote_at = now
        elif now - watch.wrote_at > _WRITE_SECONDS:
            connection.abort()

    def _look_at_silence(self, connection: Connection, watch: Watch, now: float) -> None:
        limits = self._shared.limits
        if connection.heard or connection.sender.paused:
            # Of a connection that is not read from nothing can be heard.
            connection.heard = False
            watch.heard_at = now
            watch.asked_at = 0.0
        elif watch.asked_at:
            if now - watch.asked_at > limits.keepalive_timeout:
                connection.abort()
        elif now - watch.heard_at >= limits.keepalive:
            watch.asked_at = now
            connection.ask()
