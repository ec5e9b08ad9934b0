"""What all services share: the header, the state of the store, and how handlers are registered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import DecodeError

from datastore.shim.backends.api import BackendError
from datastore.shim.errors import CorruptStore, NoLeader, ShimError
from datastore.shim.health import Health, State
from datastore.shim.rpc.guard import Guard
from datastore.shim.rpc.header import Headers
from datastore.shim.rpc.status import to_rpc_error
from datastore.shim.transport.api import (
    Body,
    Call,
    Code,
    Later,
    Pieces,
    RpcError,
    Stream,
    Transport,
    Unary,
)

LEADER_LOST_SECONDS = 30.0
"""etcd ends streams that want a leader three election timeouts after it lost its own, so that
clients try another member. A database that is away is away for all servers alike, mostly, and
watches had better stay open: later here, and only where another server was alive."""

_UNREADABLE = "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data"
_UNREADABLE_IN_STREAM = (
    "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data"
)
Outcome = TypeVar("Outcome")
_FAILURES = (ShimError, RpcError, DecodeError, BackendError)


class Desk:
    """Registers handlers so that every error leaves as a gRPC status and every call is counted."""

    def __init__(
        self,
        transport: Transport,
        headers: Headers,
        health: Health,
        guard: Guard,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        self.headers = headers
        self.health = health
        self.guard = guard
        self.started: Counter[str] = Counter()
        """Calls begun, by path."""
        self.handled: Counter[tuple[str, Code]] = Counter()
        """Calls answered, by path and code."""
        self.kinds: dict[str, str] = {}
        """Kind of each path, as etcd's metrics call them."""
        self.handlers: dict[str, Unary] = {}
        """What serves each unary path; errors leave it as RpcError only, and calls are counted."""
        self.streams: dict[str, Stream] = {}
        """The same of the paths that stream."""
        self._transport = transport
        self._observe = observe
        self._streams: dict[asyncio.Task[object], Call] = {}
        self._doomed: dict[asyncio.Task[object], ShimError] = {}
        self.elsewhere: Callable[[], bool] = lambda: False
        """Whether another server may have a database when this one has none."""
        self._timer: asyncio.TimerHandle | None = None
        health.on_change(self._health_changed)

    def unary(self, path: str, handler: Unary) -> None:
        """Serve a method with one request and one answer."""
        self._register(path, self._guard(path, handler, self._await))

    def waiting(self, path: str, handler: Callable[[Call, bytes], Awaitable[Body]]) -> None:
        """Serve a method whose answer may be long in coming: `end_streams` ends it too."""
        self._register(path, self._guard(path, handler, self._attend))

    def _register(self, path: str, guarded: Unary) -> None:
        self.kinds[path] = "unary"
        if self._observe is not None:
            guarded = _timed(path, guarded, self._observe)
        self.handlers[path] = guarded
        self._transport.unary(path, guarded)

    def stream(self, path: str, handler: Stream, kind: str = "bidi_stream") -> None:
        """Serve a method that streams at least one way."""
        self.kinds[path] = kind
        self.streams[path] = guarded = self._guard_stream(path, handler)
        self._transport.stream(path, guarded)

    def end_streams(self, error: ShimError, *, with_leader_only: bool = False) -> None:
        """End what goes on with `error`, or only the calls that asked for a leader."""
        for task, call in self._streams.items():
            if task not in self._doomed and (not with_leader_only or wants_leader(call)):
                self._doomed[task] = error
                task.cancel()

    def _guard(
        self,
        path: str,
        handler: Unary,
        attend: Callable[[str, Call, Awaitable[Body]], Awaitable[Body]],
    ) -> Unary:
        handled, started, health = self.handled, self.started, self.health
        ok = (path, Code.OK)

        def count(error: RpcError | None) -> None:
            handled[ok if error is None else (path, error.code)] += 1

        def serve(call: Call, body: bytes) -> Body | Later | Awaitable[Body]:  # hot
            started[path] += 1
            try:
                if not health.serving:
                    self._admit(call)
                answer = handler(call, body)
            except _FAILURES as error:
                raise self._refusal(path, error) from error
            if isinstance(answer, bytes):
                handled[ok] += 1
                return answer
            if isinstance(answer, Later):
                answer.note = count
                return answer
            if isinstance(answer, Pieces):
                handled[ok] += 1
                return answer
            return attend(path, call, answer)

        return serve

    async def _await(self, path: str, call: Call, answer: Awaitable[Body]) -> Body:
        try:
            body = await answer
        except _FAILURES as error:
            raise self._refusal(path, error) from error
        except asyncio.CancelledError:
            self.handled[path, Code.CANCELLED] += 1
            raise
        self.handled[path, Code.OK] += 1
        return body

    def _guard_stream(self, path: str, handler: Stream) -> Stream:
        async def admitted(call: Call) -> None:
            if not self.health.serving:
                self._admit(call)
            await handler(call)

        async def serve(call: Call) -> None:
            self.started[path] += 1
            await self._attend(path, call, admitted(call))

        return serve

    async def _attend(self, path: str, call: Call, work: Awaitable[Outcome]) -> Outcome:
        """Await what may go on for long; `end_streams` cancels it and says with which error."""
        task = asyncio.current_task()
        assert task is not None
        self._streams[task] = call
        try:
            outcome = await work
        except _FAILURES as error:
            raise self._refusal(path, error) from error
        except asyncio.CancelledError:
            if task not in self._doomed:
                self.handled[path, Code.CANCELLED] += 1
                raise
            task.uncancel()
            raise self._refusal(path, self._doomed[task]) from None
        finally:
            del self._streams[task]
            self._doomed.pop(task, None)
        self.handled[path, Code.OK] += 1
        return outcome

    def _admit(self, call: Call) -> None:
        """Refuse a call that cannot be served: for good, or because it asks for a leader."""
        if self.health.state is State.FAILED:
            raise CorruptStore
        if wants_leader(call):
            raise NoLeader

    def _refusal(self, path: str, error: Exception) -> RpcError:
        refusal = to_refusal(error)
        if isinstance(error, DecodeError) and self.kinds[path] != "unary":
            refusal = RpcError(Code.INTERNAL, _UNREADABLE_IN_STREAM)
        self.handled[path, refusal.code] += 1
        return refusal

    def _health_changed(self) -> None:
        if self._timer is not None and self.health.state is not State.AWAY:
            self._timer.cancel()
            self._timer = None
        if self.health.state is State.FAILED:
            self.end_streams(CorruptStore())
        elif self.health.state is State.AWAY and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LEADER_LOST_SECONDS, self._leader_lost)

    def _leader_lost(self) -> None:
        self._timer = None
        if self.elsewhere():
            self.end_streams(NoLeader(), with_leader_only=True)


def _timed(path: str, handler: Unary, observe: Callable[[str, float], None]) -> Unary:
    """Return a handler that also tells how long each call took (--metrics extensive)."""

    def serve(call: Call, body: bytes) -> Body | Later | Awaitable[Body]:
        start = time.perf_counter()

        def note(_error: object = None) -> None:
            observe(path, time.perf_counter() - start)

        async def awaited(answer: Awaitable[Body]) -> Body:
            try:
                return await answer
            finally:
                note()

        try:
            answer = handler(call, body)
        except BaseException:
            note()
            raise
        if isinstance(answer, bytes | Pieces):
            note()
            return answer
        if not isinstance(answer, Later):
            return awaited(answer)
        counted = answer.note

        def note_both(error: RpcError | None) -> None:
            counted(error)
            note()

        answer.note = note_both
        return answer

    return serve


def to_refusal(error: Exception) -> RpcError:
    """Return how `error`, of a handler or of decoding a request, goes over the wire."""
    if isinstance(error, RpcError):
        return error
    if isinstance(error, ShimError):
        return to_rpc_error(error)
    if isinstance(error, BackendError):
        return to_rpc_error(NoLeader())
    return RpcError(Code.INTERNAL, _UNREADABLE)


def wants_leader(call: Call) -> bool:
    """Return whether the client set ``hasleader: true`` (kube-apiserver does on every watch)."""
    return "true" in call.metadata.get("hasleader", ())
