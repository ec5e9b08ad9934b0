"""A stream whose messages are answered by a plain function, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from datastore.shim.transport.api import Call
from datastore.shim.transport.http2 import frames
from datastore.shim.transport.http2.flow import STREAM_HIGH
from datastore.shim.transport.http2.headers import Methods
from tests.support.http2_wire import Pair, data, message

UPPER = "/t.T/Upper"
LARGE = bytes(STREAM_HIGH)


class Handlers(Methods):
    """Answers in capitals; what has a question mark is answered by the task."""

    def __init__(self) -> None:
        super().__init__()
        self.stream[UPPER] = self.upper

    async def upper(self, call: Call) -> None:
        while (asked := await call.exchange(self.answer)) is not None:
            await call.send(asked[:-1])
        call.send_nowait(b"half-closed")

    def answer(self, asked: bytes) -> bytes | None:
        if asked == b"large":
            return LARGE
        return None if asked.endswith(b"?") else asked[:100].upper()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Have a stream begun on which the handler waits."""
    pair = Pair(Handlers())
    pair.hello()
    pair.say(pair.headers(UPPER))
    (call,) = pair.connection.calls.values()
    await pair.turns(lambda: call._waiter)
    yield pair
    pair.connection.connection_lost(None)
    await pair.handlers_ended()


async def ended(pair: Pair) -> None:
    """Let the handler come to its end, and what it has said be written."""
    await pair.handlers_ended()
    await asyncio.sleep(0)


def answers(pair: Pair) -> list[bytes]:
    """Return the messages that the server has written."""
    return [frame[3][5:] for frame in pair.heard() if frame[0] == frames.DATA]


async def test_a_message_is_answered_in_the_turn_it_comes_in(pair: Pair) -> None:
    for asked in (b"a", b"", b"b"):
        writes = pair.wire.writes
        pair.say(data(1, message(asked)))
        assert answers(pair) == [asked.upper()]
        assert pair.wire.writes == writes + 1


async def test_answers_keep_the_order_of_messages_however_they_are_cut(pair: Pair) -> None:
    several = message(b"a") + message(b"wait?") + message(b"b") + message(b"c?") + message(b"d")
    pair.say(data(1, several[:9]))
    pair.say(data(1, several[9:]))
    pair.say(data(1, message(b"e")))
    pair.say(data(1, message(b"f?"), end=True))
    await ended(pair)
    assert answers(pair) == [b"A", b"wait", b"B", b"c", b"D", b"E", b"f", b"half-closed"]


async def test_the_last_message_may_come_with_the_end(pair: Pair) -> None:
    pair.say(data(1, message(b"a"), end=True))
    await ended(pair)
    assert answers(pair) == [b"A", b"half-closed"]


async def test_messages_answered_open_the_window_again(pair: Pair) -> None:
    body = message(b"a" * 16_000)
    for _ in range(40):
        pair.say(data(1, body))
    updates = [frame for frame in pair.heard() if frame[0] == frames.WINDOW_UPDATE]
    assert [frame[2] for frame in updates] == [1]
    assert pair.shared.stream_window // 4 <= frames.word(updates[0][3]) <= 40 * len(body)
    assert pair.connection.held == 0


async def test_who_does_not_take_answers_gets_no_more_of_them(pair: Pair) -> None:
    for _ in range(8):
        pair.say(data(1, message(b"large")))
    (call,) = pair.connection.calls.values()
    await pair.turns(lambda: call.flow is not None and call.flow.waiters)
    assert call.flow is not None
    assert call.flow.pending < 4 * STREAM_HIGH
    assert pair.connection.held > 0


async def test_a_message_that_is_too_large_is_refused(pair: Pair) -> None:
    pair.say(data(1, b"\0\xff\xff\xff\xff"))
    await ended(pair)
    (end,) = [frame for frame in pair.heard() if frame[0] == frames.HEADERS]
    assert b"received message larger than max" in end[3]
