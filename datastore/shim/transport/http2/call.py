"""What every RPC has: who calls, a deadline, an end, and the sending half of its stream."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from datastore.shim.transport.api import Code, Peer, RpcError
from datastore.shim.transport.http2 import status
from datastore.shim.transport.http2.flow import Flow
from datastore.shim.transport.http2.headers import Head
from datastore.shim.transport.http2.messages import Assembler
from datastore.shim.transport.http2.shared import unexpected

if TYPE_CHECKING:
    from datastore.shim.transport.http2.connection import Connection

log = logging.getLogger(__name__)

NO_SLOT: Final = -1
_HTTP_TEXTS: Final = {
    405: b"gRPC requests are POST\n",
    415: b"this is a gRPC server: content-type has to be application/grpc\n",
}
HELD_LIMIT: Final = 128 << 20
"""Bytes of requests under way, of one connection."""
HELD_LIMIT_OF_ALL: Final = 512 << 20
"""The same of all connections."""


class Rpc:
    """One RPC.

    Attributes:
        timeout: Seconds, as the client said.
        done: The handler has answered, or need not any more.
        began: Headers have been sent.
        opened: When, on the loop's clock; 0 while the call is served in the turn it came in.
        flow: The sending half, once something waits there or its window was changed.
        inbox: What collects messages, where they do not come in one piece.
        remote_closed: The client has half-closed.
        held: Bytes that came and wait for the handler.
        received: Bytes of all DATA, of a call that does not come in one piece.
    """

    __slots__ = (
        "_callbacks", "_trailers", "began", "connection", "deadline_at", "done", "flow", "head",
        "held", "inbox", "opened", "received", "remote_closed", "slot", "started", "stream_id",
        "task", "timeout",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, head: Head, stream_id: int, timeout: float | None
    ) -> None:
        self.connection = connection
        self.head = head
        self.stream_id = stream_id
        self.timeout = timeout
        self.done = False
        self.began = False
        self.started = False
        self.remote_closed = True
        self.deadline_at = 0.0
        self.opened = 0.0
        self.slot = NO_SLOT
        self.held = 0
        self.received = 0
        self.flow: Flow | None = None
        self.inbox: Assembler | None = None
        self.task: asyncio.Task[None] | None = None
        self._callbacks: list[Callable[[], None]] | None = None
        self._trailers: list[tuple[str, str | bytes]] | None = None

    @property
    def path(self) -> str:
        """The method, as ``/package.Service/Method``."""
        return self.head.path

    @property
    def metadata(self) -> Mapping[str, Sequence[str | bytes]]:
        """The request's headers; a key may come several times."""
        return self.head.metadata

    @property
    def peer(self) -> Peer:
        """Who calls."""
        return self.connection.peer

    @property
    def deadline(self) -> float | None:
        """When the client stops waiting, on the loop's clock."""
        if self.timeout is None:
            return None
        return self.deadline_at or self.connection.shared.loop.time() + self.timeout

    def on_done(self, callback: Callable[[], None]) -> None:
        if self.done:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def trailer(self, key: str, value: str | bytes) -> None:
        if self._trailers is None:
            self._trailers = []
        self._trailers.append((key, value))

    def open(self) -> None:
        """Outlive the turn in which the call came: from here on it has a deadline."""
        connection = self.connection
        shared = connection.shared
        self.opened = now = shared.loop.time()
        if self.timeout is not None:
            self.deadline_at = now + self.timeout
            shared.deadlines.add(self, now)

    def expect_messages(self) -> None:
        """Collect what the client is still going to send."""
        self.remote_closed = False
        self.inbox = Assembler(self.connection.shared.max_recv, gzip=self.head.gzip)

    def obtain_flow(self) -> Flow:
        """Return the sending half, made when it is needed first."""
        if self.flow is None:
            self.flow = self.connection.sender.open(self.stream_id)
        return self.flow

    def begin(self) -> Flow:
        """Send the headers, if they have not been sent, and return the sending half."""
        if not self.began:
            self.began = True
            self.connection.sender.headers(self.stream_id, status.RESPONSE)
        return self.obtain_flow()

    def refuse(self, error: RpcError | None) -> None:
        """End the call with a status; None is OK."""
        self.finish()
        block = status.trailers(error, self._trailers or ())
        if not self.began:
            self.began = True
            block = status.RESPONSE + block
        sender = self.connection.sender
        if self.flow is not None:
            sender.finish(self.flow, block)
        else:
            sender.headers(self.stream_id, block, end=True)

    def decline(self) -> None:
        """Answer a request that nobody serves."""
        code = self.head.http_status
        if not code:
            self.refuse(self.head.refusal)
            return
        self.finish()
        self.began = True
        sender = self.connection.sender
        sender.headers(self.stream_id, status.http_refusal(code))
        flow = self.obtain_flow()
        sender.queue(flow, _HTTP_TEXTS[code])
        sender.finish(flow, b"")

    def fail(self, error: Exception) -> None:
        """Answer with what the handler raised; what nobody foresaw is logged."""
        if not isinstance(error, RpcError):
            error = unexpected(self.head.path, error)
        if not self.done:
            self.refuse(error)

    def expire(self) -> None:
        """Answer that the deadline has passed, and end the handler."""
        if not self.done:
            self.refuse(RpcError(Code.DEADLINE_EXCEEDED, "context deadline exceeded"))
            self._cancel_task()

    def abort(self, error: RpcError) -> None:
        """Answer for the handler, and end it."""
        if not self.done:
            self.refuse(error)
            self._cancel_task()

    def abandon(self) -> None:
        """Give up a call whose stream is no more."""
        if not self.done:
            self.finish()
            self._cancel_task()
        if self.flow is not None:
            self.connection.sender.drop(self.flow)

    def finish(self) -> None:
        """Take note, once, that the call has its answer or needs none. Hot."""
        self.done = True
        if self.slot != NO_SLOT:
            self.connection.shared.deadlines.remove(self)
        if self.held:
            self.hold(-self.held)
        if self._callbacks is not None:
            self._call_back()

    def _call_back(self) -> None:
        callbacks, self._callbacks = self._callbacks or (), None
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("end of a call cannot be told", extra={"path": self.head.path})

    def hold(self, size: int) -> None:
        """Count bytes that wait here, or with a negative size wait no more.

        Raises:
            RpcError: the client has too much under way.
        """
        connection = self.connection
        ledger = connection.shared.ledger
        self.held += size
        connection.held += size
        ledger.held += size
        if size > 0 and (connection.held > HELD_LIMIT or ledger.held > HELD_LIMIT_OF_ALL):
            raise RpcError(Code.RESOURCE_EXHAUSTED, "grpc: too much is under way")

    def enter(self) -> bool:
        """Begin the task of the call; return whether there is still something to do.

        A task that is cancelled before it has begun would leave its coroutine unawaited: it is
        let begin, and finds the call done.
        """
        self.started = True
        return not self.done

    def leave(self) -> None:
        """End the task of the call, whatever became of it."""
        self.connection.running -= 1
        if self.task is not None:
            self.connection.shared.tasks.discard(self.task)
            self.task = None

    def interrupted(self) -> None:
        """Answer a call whose task was cancelled by somebody else than the transport."""
        if not self.done:
            self.refuse(RpcError(Code.CANCELLED, "context canceled"))

    def _cancel_task(self) -> None:
        if self.task is not None and self.started:
            self.task.cancel()
