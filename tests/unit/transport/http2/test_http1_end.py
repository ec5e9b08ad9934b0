"""How long a connection of HTTP/1.1 may last (keepalive.py)."""

from __future__ import annotations

import asyncio

import pytest

from datastore.shim.transport.http2 import keepalive
from datastore.shim.transport.http2.headers import Methods
from datastore.shim.transport.http2.keepalive import Sweeper
from tests.support.http2_wire import Pair


class Http1:
    """What a connection is handed to."""

    busy = False

    def connection_made(self, transport: object) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, error: Exception | None) -> None: ...

    def shutdown(self) -> None: ...


@pytest.fixture
async def http1() -> Http1:
    return Http1()


@pytest.fixture
async def pair(http1: Http1) -> Pair:
    pair = Pair(Methods(), http1=lambda: http1)
    pair.say(b"GET / HTTP/1.1\r\n")
    return pair


async def test_one_without_a_request_ends(pair: Pair) -> None:
    sweeper = Sweeper(pair.shared, pair.connections)
    now = asyncio.get_running_loop().time()
    sweeper.sweep(now)
    sweeper.sweep(now + keepalive._HTTP1_SECONDS)
    assert not pair.wire.aborted
    sweeper.sweep(now + keepalive._HTTP1_SECONDS + 1)
    assert pair.wire.aborted


async def test_one_that_waits_for_its_answer_lasts(pair: Pair, http1: Http1) -> None:
    sweeper = Sweeper(pair.shared, pair.connections)
    now = asyncio.get_running_loop().time()
    http1.busy = True
    for hours in range(100):
        sweeper.sweep(now + 3600 * hours)
    assert not pair.wire.aborted


async def test_one_whose_answer_nobody_reads_ends(
    pair: Pair, http1: Http1, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeper = Sweeper(pair.shared, pair.connections)
    now = asyncio.get_running_loop().time()
    http1.busy = True
    waiting = 1000
    monkeypatch.setattr(pair.wire, "get_write_buffer_size", lambda: waiting, raising=False)
    for seconds in range(0, 600, 10):  # it reads slowly
        waiting += 1
        sweeper.sweep(now + seconds)
    assert not pair.wire.aborted
    for seconds in range(600, 700, 10):
        sweeper.sweep(now + seconds)
    assert pair.wire.aborted
