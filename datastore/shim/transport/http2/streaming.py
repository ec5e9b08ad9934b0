"""RPCs that stream at least one way."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from datastore.shim.transport.api import Answer, Body, RpcError, exchange
from datastore.shim.transport.http2 import frames, messages
from datastore.shim.transport.http2.call import Rpc
from datastore.shim.transport.http2.flow import STREAM_HIGH
from datastore.shim.transport.http2.frames import StreamFault

_MESSAGE_OVERHEAD: Final = 64
"""About what a message takes in memory beside its bytes."""


class StreamCall(Rpc):
    """A task that receives and sends; the client is let send more as messages are taken.

    Attributes:
        prompt: What answers the next message for the task, which waits for it; or None.
    """

    __slots__ = (
        "_answer", "_fault", "_messages", "_uncredited", "_unread", "_waiter", "prompt",
    )  # fmt: skip

    def start(self) -> None:
        """Run the handler."""
        self._messages: deque[bytes] = deque()
        self._fault: RpcError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._answer: Answer | None = None
        self.prompt: Answer | None = None
        # Bytes that wait for the handler, and those consumed of which the client was not told.
        self._unread = 0
        self._uncredited = 0
        self.expect_messages()
        shared = self.connection.shared
        shared.stats["streams"] += 1
        self.connection.running += 1
        self.task = task = shared.loop.create_task(self._run())
        shared.tasks.add(task)

    async def _run(self) -> None:
        try:
            if self.enter():
                assert self.head.stream is not None
                await self.head.stream(self)
                if not self.done:
                    self.refuse(None)
        except asyncio.CancelledError:
            self.interrupted()
        except Exception as error:  # noqa: BLE001 - the boundary that logs
            self.fail(error)
        finally:
            self.connection.shared.stats["streams"] -= 1
            self.leave()

    async def recv(self) -> bytes | None:
        """Return the next message, or None when the client has half-closed."""
        while not self._messages:
            if self._fault is not None:
                raise self._fault
            if self.remote_closed or self.done:
                return None
            self._waiter = self.connection.shared.loop.create_future()
            self.prompt = self._answer
            await self._waiter
        message = self._messages.popleft()
        if not self._messages:
            self._credit()
        return message

    async def exchange(self, answer: Answer) -> bytes | None:
        self._answer = answer
        try:
            return await exchange(self, answer)
        finally:
            self._answer = self.prompt = None

    def send_nowait(self, message: bytes) -> int:
        """Queue a message and return the bytes that wait on this stream. Hot."""
        if self.done:
            return 0
        flow = self.flow
        if flow is None or not self.began:
            flow = self.begin()
        return self.connection.sender.message(flow, message)

    async def send(self, message: Body) -> None:
        if isinstance(message, bytes):
            pending = self.send_nowait(message)
        else:
            pending = 0 if self.done else self.connection.sender.enqueue(self.begin(), message)
        if pending > STREAM_HIGH:
            await self.drained()

    async def drained(self) -> None:
        """Wait while more than the high-water mark waits on this stream."""
        flow = self.flow
        while flow is not None and flow.pending > STREAM_HIGH:
            waiter: asyncio.Future[None] = self.connection.shared.loop.create_future()
            flow.waiters.append(waiter)
            await waiter

    def feed(self, data: bytes) -> None:
        """Take a part of what the client sends.

        Raises:
            StreamFault: it is more than the window allows.
            RpcError: the connection has too much under way.
        """
        assert self.inbox is not None
        self._unread += len(data)
        if self._unread + self._uncredited > self.connection.shared.stream_window:
            text = "stream window exceeded"
            raise StreamFault(self.stream_id, frames.FLOW_CONTROL_ERROR, text)
        if self._fault is not None:
            return
        self.hold(len(data))
        try:
            found = self.inbox.feed(data)
        except RpcError as error:
            self._fault = error
        else:
            if not found:
                return
            self.hold(len(found) * _MESSAGE_OVERHEAD)
            self._messages.extend(found)
        self._wake()

    def answer_now(self, data: bytes) -> bool:
        """Answer what is a whole message by `prompt`, and return whether it was. Hot."""
        assert self.inbox is not None
        assert self.prompt is not None
        flow = self.flow
        if flow is not None and flow.pending > STREAM_HIGH:
            return False
        message = self.inbox.whole(data)
        if message is None or (answer := self.prompt(message)) is None:
            return False
        size = len(data)
        self.received += size
        self._take_off(size)
        self.send_nowait(answer)
        return True

    def half_close(self) -> None:
        """Take note that nothing more comes."""
        if self.inbox is not None and not self.inbox.is_empty and self._fault is None:
            self._fault = messages.truncated()
        self._wake()

    def finish(self) -> None:
        super().finish()
        self.prompt = None
        self._messages.clear()

    def _wake(self) -> None:
        self.prompt = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _credit(self) -> None:
        """Open the stream's window again by what has been consumed."""
        assert self.inbox is not None
        partial = self.inbox.held
        self.hold(partial - self.held)
        freed = self._unread - partial
        self._unread = partial
        self._take_off(freed)

    def _take_off(self, size: int) -> None:
        """Take note that bytes are consumed, and tell the client in time."""
        self._uncredited += size
        if self._uncredited * 4 >= self.connection.shared.stream_window and not self.remote_closed:
            self.connection.sender.control(frames.window_update(self.stream_id, self._uncredited))
            self._uncredited = 0
