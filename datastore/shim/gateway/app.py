"""The gateway as an ASGI application: an HTTP request becomes a call of the handler it names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from google.protobuf.message import Message

from datastore.shim.gateway import codec
from datastore.shim.gateway.call import GatewayCall, to_metadata, to_timeout
from datastore.shim.gateway.codec import BadJson
from datastore.shim.gateway.replies import Reply
from datastore.shim.gateway.routes import ROUTES, Route
from datastore.shim.gateway.splitter import Splitter
from datastore.shim.lanes import Lane
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import PEER, Code, Peer, RpcError, settled
from datastore.shim.transport.http2.messages import too_large
from datastore.shim.transport.http2.timeout import BadTimeout

log = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_HELD_LIMIT: Final = 256 << 20
"""Bytes of all requests that are being read."""
_JSON_FACTOR: Final = 4
"""JSON of a message may be so many times its size; more is refused before it is read."""
_LARGE: Final = 64 << 10
"""What is larger is translated in a lane of its own: other requests do not wait for it."""
_IGNORED: Final = (
    "CommonName of client sending a request against gateway will be ignored and not used as "
    "expected\n"
)
_ALIAS: Final = "/v3beta/"
_EXPIRED: Final = RpcError(Code.DEADLINE_EXCEEDED, "context deadline exceeded")


class HungUp(Exception):
    """The client is gone."""


class Gateway:
    """Serves every RPC that is registered at the desk and has a path.

    Args:
        desk: Where the handlers are.
        max_recv: Bytes that a request may have as a message.
        lane: Where large messages are translated.
    """

    def __init__(self, desk: Desk, max_recv: int, lane: Lane) -> None:
        self._desk = desk
        self._max_recv = max_recv
        self._lane = lane
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        reply = Reply(send)
        guard = self._desk.guard
        if guard.enabled and guard.trust_certificates and scope[PEER].common_name:
            await reply.text(400, _IGNORED)
            return
        path = scope["path"]
        if path.startswith(_ALIAS):
            path = "/v3/" + path.removeprefix(_ALIAS)
        try:
            route = _find(path, scope["method"])
            call = self._open(route, scope)
            served = self._serve(route, call, receive, reply)
            async with asyncio.timeout_at(call.deadline):
                await served
        except HungUp:
            pass
        except TimeoutError:
            await reply.refuse(_EXPIRED)
        except RpcError as error:
            await reply.refuse(error)
        except Exception:
            log.exception("call failed in a way that nobody foresaw", extra={"path": path})
            await reply.refuse(RpcError(Code.UNKNOWN, "etcdserver: internal error"))

    def _open(self, route: Route, scope: Scope) -> GatewayCall:
        headers = scope["headers"]
        try:
            seconds = to_timeout(headers)
        except BadTimeout as error:
            raise RpcError(Code.INVALID_ARGUMENT, "invalid grpc-timeout") from error
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        # The caller is who the token says, whoever has the certificate (contract 2.10).
        peer = Peer(scope[PEER].address, None, None)
        return GatewayCall(route.rpc, to_metadata(headers), peer, deadline)

    async def _serve(
        self, route: Route, call: GatewayCall, receive: Receive, reply: Reply
    ) -> None:
        if route.rpc not in self._desk.kinds:
            raise RpcError(Code.UNIMPLEMENTED, f"unknown method {route.rpc}")
        try:
            if route.sends_many:
                feeding = asyncio.create_task(self._feed(route, call, receive))
            else:
                await call.give(await self._read(route, receive))
                feeding = asyncio.create_task(_until_gone(receive))
            await _race(feeding, self._answer(route, call, reply))
        finally:
            call.finish()

    async def _read(self, route: Route, receive: Receive) -> bytes:
        """Return the one request of a body."""
        body = bytearray()
        more = True
        try:
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise HungUp
                part = event.get("body", b"")
                more = event.get("more_body", False)
                body += part
                self._held += len(part)
                if len(body) > _JSON_FACTOR * self._max_recv:
                    raise too_large(len(body), self._max_recv)
                if self._held > _HELD_LIMIT:
                    raise RpcError(Code.RESOURCE_EXHAUSTED, "grpc: too much is under way")
            return await self._translate(bytes(body), route.request)
        finally:
            self._held -= len(body)

    async def _feed(self, route: Route, call: GatewayCall, receive: Receive) -> None:
        """Hand over each request of a body as it comes; return when the client is gone.

        As in etcd, what cannot be understood ends the requests, not the answers.
        """
        splitter = Splitter(_JSON_FACTOR * self._max_recv)
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            more = event.get("more_body", False)
            try:
                for text in splitter.feed(event.get("body", b"")):
                    await call.give(await self._translate(text, route.request))
            except (BadJson, RpcError):
                break
        await call.give(None)
        await _until_gone(receive)

    async def _translate(self, text: bytes, kind: type[Message]) -> bytes:
        try:
            if len(text) > _LARGE:
                message = await self._lane(codec.decode, text, kind)
            else:
                message = codec.decode(text, kind)
        except BadJson as error:
            raise RpcError(Code.INVALID_ARGUMENT, str(error)) from error
        body = message.SerializeToString()
        if len(body) > self._max_recv:
            raise too_large(len(body), self._max_recv)
        return body

    async def _answer(self, route: Route, call: GatewayCall, reply: Reply) -> None:
        if not route.answers_many:
            request = await call.recv()
            assert request is not None
            body = await settled(self._desk.handlers[route.rpc](call, request))
            await reply.only(await self._to_json(body, route.answer))
            return
        handling = asyncio.create_task(_as_coroutine(self._desk.streams[route.rpc](call)))
        try:
            await self._forward(handling, call, route, reply)
        finally:
            handling.cancel()

    async def _forward(
        self, handling: asyncio.Task[None], call: GatewayCall, route: Route, reply: Reply
    ) -> None:
        """Send the answers of a handler as they come, and how it ended."""
        ended = False
        while not ended:
            answered = asyncio.create_task(call.answered())
            await asyncio.wait({handling, answered}, return_when=asyncio.FIRST_COMPLETED)
            answered.cancel()
            ended = handling.done()
            while (answer := call.take()) is not None:
                await reply.part(await self._to_json(answer, route.answer))
        try:
            await handling
        except RpcError as error:
            await reply.break_off(error)
        else:
            await reply.end()

    async def _to_json(self, body: bytes, kind: type[Message]) -> bytes:
        if len(body) > _LARGE:
            return await self._lane(_to_json, body, kind)
        return _to_json(body, kind)


def _find(path: str, method: str) -> Route:
    route = ROUTES.get(path)
    if route is None:
        raise RpcError(Code.NOT_FOUND, "Not Found")
    if method != "POST":
        raise RpcError(Code.UNIMPLEMENTED, "Method Not Allowed")
    return route


def _to_json(body: bytes, kind: type[Message]) -> bytes:
    return codec.encode(kind.FromString(body))


async def _until_gone(receive: Receive) -> None:
    """Return when the client has hung up, or has its answer."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _race(feeding: asyncio.Task[None], answering: Awaitable[None]) -> None:
    """Await the answer, but no longer than the client is there."""
    work = asyncio.create_task(_as_coroutine(answering))
    try:
        await asyncio.wait({feeding, work}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            feeding.result()
            raise HungUp
        work.result()
    finally:
        for task in (feeding, work):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(feeding, work, return_exceptions=True)


async def _as_coroutine(work: Awaitable[None]) -> None:
    await work
