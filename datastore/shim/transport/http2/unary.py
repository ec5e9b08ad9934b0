"""RPCs with one request and one answer."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Coroutine
from typing import Final

from datastore.shim.transport.api import (
    Answer,
    Body,
    Code,
    Later,
    Pieces,
    RpcError,
    exchange,
    whole,
)
from datastore.shim.transport.http2 import frames, messages, status
from datastore.shim.transport.http2.call import Rpc
from datastore.shim.transport.http2.flow import Flow


class UnaryCall(Rpc):
    """One request, which a plain function may answer in the turn of the loop it came in."""

    __slots__ = ("_request",)

    prompt: Final = None

    async def recv(self) -> bytes | None:
        raise RuntimeError("a unary call has no further message")

    def send_nowait(self, message: bytes) -> int:
        raise RuntimeError("a unary call is answered by returning")

    async def send(self, message: Body) -> None:
        self.send_nowait(whole(message))

    async def drained(self) -> None:
        """Return at once: a unary call queues nothing."""

    async def exchange(self, answer: Answer) -> bytes | None:
        return await exchange(self, answer)

    def receive(self) -> None:
        """Collect the request, which does not come in one piece."""
        self._request: bytes | None = None
        self.expect_messages()

    def feed(self, data: bytes) -> None:
        """Take a part of the request.

        Raises:
            RpcError: it is too large, or more than one message.
        """
        assert self.inbox is not None
        if self.head.unary is None:
            update = frames.window_update(self.stream_id, len(data))
            self.connection.sender.control(update)
            return
        self.hold(len(data))
        for message in self.inbox.feed(data):
            if self._request is not None:
                raise RpcError(Code.INTERNAL, "grpc: a unary call has more than one request")
            self._request = message

    def half_close(self) -> None:
        """Serve the request, which is complete now.

        Raises:
            RpcError: it is not.
        """
        if self.head.unary is None:
            self.decline()
            return
        request = self._request
        if request is None or not (self.inbox is None or self.inbox.is_empty):
            raise messages.truncated()
        self._request = self.inbox = None
        self.connection.serve(self, request)

    def give(self, answer: Body | Later | Awaitable[Body]) -> None:
        """Take what the handler returned. Hot."""
        if isinstance(answer, bytes):
            if (
                self.opened == 0.0
                and self._callbacks is None
                and self._trailers is None
                and self.connection.sender.reply(self.stream_id, answer)
            ):
                self.done = True
            else:
                self.answer(answer)
            return
        if isinstance(answer, Pieces):
            self._answer_in_pieces(answer)
            return
        if self.opened == 0.0:
            self.connection.calls[self.stream_id] = self
            self.open()
        self.connection.running += 1
        if isinstance(answer, Later):
            answer.take(self._take)
            return
        shared = self.connection.shared
        self.task = task = shared.loop.create_task(self._await(answer))
        shared.tasks.add(task)

    def answer(self, body: bytes) -> None:
        """Answer with a message. Hot."""
        self.finish()
        connection = self.connection
        if (
            self._trailers is None
            and self.flow is None
            and connection.sender.reply(self.stream_id, body)
        ):
            connection.ended(self.stream_id)
            return
        flow = self._begin_answer()
        connection.sender.message(flow, body)
        connection.sender.finish(flow, status.trailers(None, self._trailers or ()))

    def _answer_in_pieces(self, body: Pieces) -> None:
        if len(body) > messages.MAX_SEND:
            self.refuse(messages.too_large_to_send(len(body)))
            return
        self.finish()
        flow = self._begin_answer()
        self.connection.sender.enqueue(flow, body)
        self.connection.sender.finish(flow, status.trailers(None, self._trailers or ()))

    def _begin_answer(self) -> Flow:
        """Send the headers of an answer that may have to wait for windows."""
        if self.stream_id not in self.connection.calls:
            self.connection.calls[self.stream_id] = self
        return self.begin()

    def _take(self, body: bytes | None, error: RpcError | None) -> None:
        self.connection.running -= 1
        if self.done:
            return
        if error is not None:
            self.refuse(error)
        else:
            self.answer(body or b"")

    async def _await(self, answer: Awaitable[Body]) -> None:
        try:
            if not self.enter():
                if isinstance(answer, Coroutine):
                    answer.close()
                return
            body = await answer
            if self.done:
                return
            if isinstance(body, bytes):
                self.answer(body)
            else:
                self._answer_in_pieces(body)
        except CancelledError:
            self.interrupted()
        except Exception as error:  # noqa: BLE001 - the boundary that logs
            self.fail(error)
        finally:
            self.leave()
