"""What all connections of one server share."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from datastore.shim.transport.api import Code, Http1Connection, Limits, RpcError
from datastore.shim.transport.http2.deadlines import Deadlines
from datastore.shim.transport.http2.flow import Ledger
from datastore.shim.transport.http2.headers import Methods
from datastore.shim.transport.http2.outbound import Sender

log = logging.getLogger(__name__)

MOST_STREAMS: Final = 16_384
"""Of one connection, whatever the option allows: what one peer may occupy has to have an end."""
WINDOW_MARGIN: Final = 64 << 10
LEAST_WINDOW: Final = 1 << 20


class Shared:
    """The loop, the methods, the limits, and the turn's list of who has something to write.

    Attributes:
        stream_window: Bytes that a stream may have in flight towards us: a message of the
            largest size always fits, so that one needs no further window to be completed.
        http1: What makes a connection's HTTP/1.1, where that is served too.
        tasks: Handlers that run, referenced so that they are not collected.
    """

    def __init__(self, limits: Limits, methods: Methods) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.methods = methods
        self.max_recv = limits.max_recv
        self.max_streams = min(limits.max_streams, MOST_STREAMS)
        self.stream_window = max(LEAST_WINDOW, limits.max_recv + WINDOW_MARGIN)
        self.http1: Callable[[], Http1Connection] | None = None
        self.deadlines = Deadlines(self.loop)
        self.tasks: set[asyncio.Task[None]] = set()
        self.stats: Counter[str] = Counter(
            connections=0, streams=0, resets=0, goaways=0, refused=0
        )
        self.calls = 0
        """Calls begun; of its own for speed."""
        self.left = asyncio.Event()
        """Set whenever a connection is gone."""
        self.ledger = Ledger()
        self._dirty: list[Sender] = []

    def schedule(self, sender: Sender) -> None:
        """Have `sender` write once at the end of this turn of the loop. Hot."""
        sender.dirty = True
        if not self._dirty:
            self.loop.call_soon(self._flush)
        self._dirty.append(sender)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for sender in dirty:
            try:
                sender.flush()
            except Exception:
                log.exception("what one connection has to say cannot be written")


def unexpected(path: str, error: BaseException) -> RpcError:
    """Log a fault of ours and return what the client is told: nothing."""
    log.error("call failed in a way that nobody foresaw", extra={"path": path}, exc_info=error)
    return RpcError(Code.UNKNOWN, "etcdserver: internal error")
