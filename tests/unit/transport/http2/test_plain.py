"""Requests of HTTP/2 that are not gRPC, without a socket."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from datastore.shim.transport.http2 import frames
from datastore.shim.transport.http2.headers import Methods
from datastore.shim.transport.http2.hpack import encode_literal
from datastore.shim.transport.http2.plain import serve
from tests.support.http2_wire import Pair, data, kinds


async def page(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer without reading a request."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"page"})


@pytest.fixture
async def pair() -> Pair:
    methods = Methods()
    methods.plain = partial(serve, page)
    pair = Pair(methods)
    pair.hello()
    return pair


def post(pair: Pair, *more: tuple[bytes, bytes]) -> None:
    """Send the head of a request, on stream 1."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), *more]
    block = b"".join(encode_literal(*field) for field in fields)
    pair.say(frames.head(len(block), frames.HEADERS, frames.END_HEADERS, 1) + block)


async def test_a_body_of_another_length_resets_a_stream_that_nobody_has_answered(
    pair: Pair,
) -> None:
    post(pair, (b"content-length", b"5"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert pair.heard() == []
    pair.say(data(1, b"four", end=True))
    assert kinds(pair.heard()) == [frames.RST_STREAM]
    await pair.handlers_ended()


async def test_a_body_of_the_length_that_was_told_is_answered(pair: Pair) -> None:
    post(pair, (b"content-length", b"4"))
    pair.say(data(1, b"four", end=True))
    await pair.turns(lambda: pair.wire.written)
    assert kinds(pair.heard()) == [frames.HEADERS, frames.DATA, frames.DATA]


async def test_who_tells_no_length_need_not_end_before_the_answer(pair: Pair) -> None:
    post(pair)
    await pair.turns(lambda: pair.wire.written)
    assert kinds(pair.heard())[:2] == [frames.HEADERS, frames.DATA]
