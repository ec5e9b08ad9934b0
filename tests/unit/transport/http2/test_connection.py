"""A connection, without a socket."""

from __future__ import annotations

import asyncio

import pytest

from datastore.shim.transport.api import Call, Code, Later, Limits, Pieces, RpcError
from datastore.shim.transport.http2 import frames, keepalive
from datastore.shim.transport.http2.connection import BACKLOG_LIMIT
from datastore.shim.transport.http2.headers import Methods
from datastore.shim.transport.http2.hpack import encode_headers
from datastore.shim.transport.http2.keepalive import Sweeper
from datastore.shim.transport.http2.outbound import PENDING_LIMIT
from tests.support.http2_wire import Pair, data, kinds, message

PIECES = "/t.T/Pieces"
ECHO, WAIT, LATER, BIG, BIDI = "/t.T/Echo", "/t.T/Wait", "/t.T/Later", "/t.T/Big", "/t.T/Bidi"


class Handlers(Methods):
    """Handlers, and what they have seen."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[Later] = []
        self.seen: list[str] = []
        self.calls = 0
        self.unary[ECHO] = lambda _call, body: body
        self.unary[WAIT] = self.wait
        self.unary[LATER] = self.answer_later
        self.unary[BIG] = self.big
        self.unary[PIECES] = lambda _call, body: Pieces([bytes(1000)] * int(body))
        self.stream[BIDI] = self.bidi

    async def wait(self, call: Call, body: bytes) -> bytes:
        self.seen.append("begun")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.seen.append("ended")
        return b""

    def answer_later(self, call: Call, body: bytes) -> Later:
        call.on_done(lambda: self.seen.append("done"))
        self.later.append(Later())
        return self.later[-1]

    def big(self, call: Call, body: bytes) -> bytes:
        self.calls += 1
        return bytes(PENDING_LIMIT + frames.DEFAULT_WINDOW)

    async def bidi(self, call: Call) -> None:
        while (got := await call.recv()) is not None:
            self.seen.append(got.decode())


@pytest.fixture
async def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
async def pair(handlers: Handlers) -> Pair:
    pair = Pair(handlers)
    pair.hello()
    return pair


async def test_many_calls_in_one_segment_are_answered_by_one_write(pair: Pair) -> None:
    segment = b""
    for number in range(64):
        head = pair.headers(ECHO)
        segment += head + data(pair.next_id - 2, message(b"%d" % number), end=True)
    pair.wire.writes = 0
    pair.say(segment)
    answers = [frame[3][5:] for frame in pair.heard() if frame[0] == frames.DATA]
    assert answers == [b"%d" % number for number in range(64)]
    assert pair.wire.writes == 1
    assert pair.connection.calls == {}


async def test_a_segment_may_be_cut_anywhere(pair: Pair) -> None:
    raw = pair.headers(ECHO, (b"grpc-timeout", b"5S")) + data(1, message(b"abc"), end=True)
    for at in range(len(raw)):
        pair.say(raw[at : at + 1])
    found = pair.heard()
    assert kinds(found) == [frames.HEADERS, frames.DATA, frames.HEADERS]
    assert found[1][3] == message(b"abc")


async def test_answers_of_one_turn_are_one_write(pair: Pair, handlers: Handlers) -> None:
    for _ in range(8):
        pair.call(LATER, b"")
    assert pair.heard() == []
    pair.wire.writes = 0
    for later in handlers.later:
        later.answer(b"x")
    await asyncio.sleep(0)
    assert kinds(pair.heard()) == [frames.HEADERS, frames.DATA, frames.HEADERS] * 8
    assert pair.wire.writes == 1
    assert handlers.seen == ["done"] * 8


async def test_a_ping_beside_a_call_is_answered_with_it(pair: Pair, handlers: Handlers) -> None:
    pair.call(LATER, b"")
    pair.wire.writes = 0
    pair.say(frames.ping(b"01234567"))
    handlers.later[0].answer(b"x")
    await asyncio.sleep(0)
    assert kinds(pair.heard()) == [frames.PING, frames.HEADERS, frames.DATA, frames.HEADERS]
    assert pair.wire.writes == 1


async def test_a_ping_does_not_wait_for_the_answer_of_a_call(pair: Pair) -> None:
    pair.call(LATER, b"")
    pair.say(frames.ping(b"01234567"))
    await asyncio.sleep(0)
    assert kinds(pair.heard()) == [frames.PING]


async def test_pieces_that_are_not_sent_are_counted_until_the_call_is_reset(pair: Pair) -> None:
    stream = pair.call(PIECES, b"1000")
    sender = pair.connection.sender
    await pair.turns(lambda: sender.window == 0)
    # A piece that is sent in part is kept as a whole.
    assert 1_000_000 - frames.DEFAULT_WINDOW <= sender.pending <= 1_000_000
    pair.say(frames.rst_stream(stream, frames.CANCEL))
    assert sender.pending == 0
    assert pair.connection.calls == {}


async def test_an_answer_that_etcd_would_not_send_is_refused(
    pair: Pair, handlers: Handlers
) -> None:
    handlers.unary[PIECES] = lambda _call, _body: Pieces([bytes(1 << 20)] * 2048)
    pair.call(PIECES, b"")
    ((kind, flags, _, block),) = pair.heard()
    assert (kind, flags) == (frames.HEADERS, frames.END_STREAM | frames.END_HEADERS)
    assert b"grpc: trying to send message larger than max (2147483648 vs. 2147483647)" in block


async def test_a_call_that_was_reset_is_not_answered(pair: Pair, handlers: Handlers) -> None:
    stream = pair.call(LATER, b"")
    pair.say(frames.rst_stream(stream, frames.CANCEL))
    assert handlers.seen == ["done"]
    assert pair.connection.running == 1
    handlers.later[0].answer(b"x")
    await asyncio.sleep(0)
    assert pair.heard() == []
    assert pair.connection.running == 0


async def test_a_handler_that_is_cancelled_before_it_began_leaves_nothing(
    pair: Pair, handlers: Handlers
) -> None:
    stream = pair.call(WAIT, b"")
    pair.say(frames.rst_stream(stream, frames.CANCEL))
    await pair.handlers_ended()
    assert handlers.seen == []
    assert pair.connection.running == 0


async def test_a_lost_connection_ends_its_handlers(pair: Pair, handlers: Handlers) -> None:
    pair.call(WAIT, b"")
    await pair.turns(lambda: handlers.seen)
    pair.connection.connection_lost(None)
    await pair.handlers_ended()
    assert handlers.seen == ["begun", "ended"]
    assert pair.connections == set()


async def test_a_deadline_of_nothing_has_passed(pair: Pair, handlers: Handlers) -> None:
    pair.call(LATER, b"", (b"grpc-timeout", b"0n"))
    ((kind, flags, _, block),) = pair.heard()
    assert (kind, flags) == (frames.HEADERS, frames.END_STREAM | frames.END_HEADERS)
    assert b"grpc-status\x014" in block
    assert handlers.later == []


async def test_what_is_not_grpc_is_heard_to_its_end(pair: Pair) -> None:
    head = encode_headers([
        (b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"x"),
    ])  # fmt: skip
    opened = frames.head(len(head), frames.HEADERS, frames.END_HEADERS, 1) + head
    pair.say(opened)
    pair.say(data(1, b"test"))
    assert kinds(pair.heard()) == [frames.WINDOW_UPDATE]
    # Trailers that are not the end: answered earlier, this fault would go unnoticed.
    trailers = encode_headers([(b"x-test", b"ok")])
    pair.say(frames.head(len(trailers), frames.HEADERS, frames.END_HEADERS, 1) + trailers)
    ((kind, _, _, payload),) = pair.heard()
    assert (kind, int.from_bytes(payload, "big")) == (frames.RST_STREAM, frames.PROTOCOL_ERROR)


async def test_data_behind_our_answer_is_dropped_and_the_client_told_once(pair: Pair) -> None:
    pair.say(pair.headers("/t.T/Nothing"))
    assert kinds(pair.heard()) == [frames.HEADERS]
    pair.say(data(1, bytes(1000)))
    ((kind, _, _, payload),) = pair.heard()
    assert (kind, frames.word(payload)) == (frames.RST_STREAM, frames.NO_ERROR)
    pair.say(data(1, bytes(1000)) + data(1, b"", end=True))
    assert pair.heard() == []


async def test_who_does_not_take_large_answers_gets_no_more_of_them(
    pair: Pair, handlers: Handlers
) -> None:
    for _ in range(5):
        pair.call(BIG, b"")
    assert handlers.calls == 1
    assert pair.connection.sender.pending > PENDING_LIMIT
    for stream in (0, 1, 3, 5, 7, 9):
        pair.say(frames.window_update(stream, 1 << 30))
    await pair.turns(lambda: not pair.connection.calls)
    assert handlers.calls == 5
    assert pair.shared.ledger.pending == 0


async def test_requests_that_wait_for_earlier_answers_are_bounded(
    pair: Pair, handlers: Handlers
) -> None:
    pair.call(BIG, b"")
    pair.heard()
    body = bytes(16_000)
    fitting = BACKLOG_LIMIT // len(body) + 1
    for _ in range(fitting):
        pair.call(ECHO, body)
    assert frames.HEADERS not in kinds(pair.heard())
    pair.call(ECHO, body)
    (block,) = (payload for kind, _, _, payload in pair.heard() if kind == frames.HEADERS)
    assert b"grpc-status\x018" in block
    pair.connection.connection_lost(None)
    assert pair.shared.ledger.held == 0


async def test_a_callback_that_fails_does_not_keep_others_from_being_told(
    pair: Pair, handlers: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    def both(call: Call, body: bytes) -> Later:
        call.on_done(broken)
        return handlers.answer_later(call, body)

    handlers.unary[LATER] = both
    pair.call(LATER, b"")
    handlers.later[0].answer(b"x")
    await asyncio.sleep(0)
    assert kinds(pair.heard()) == [frames.HEADERS, frames.DATA, frames.HEADERS]
    assert handlers.seen == ["done"]
    assert "ZeroDivisionError" in caplog.text


async def test_messages_taken_open_the_window_again(pair: Pair, handlers: Handlers) -> None:
    pair.say(pair.headers(BIDI))
    body = message(b"a" * 16_000)
    for _ in range(40):
        pair.say(data(1, body))
    await pair.turns(lambda: len(handlers.seen) == 40)
    await asyncio.sleep(0)
    updates = [frame for frame in pair.heard() if frame[0] == frames.WINDOW_UPDATE]
    assert [frame[2] for frame in updates] == [1]
    assert frames.word(updates[0][3]) == 40 * len(body)
    assert pair.connection.held == 0
    pair.connection.connection_lost(None)
    await pair.handlers_ended()


async def test_more_than_the_window_allows_ends_the_stream(pair: Pair) -> None:
    pair.say(pair.headers(BIDI))
    for _ in range(pair.shared.stream_window // 16_000 + 1):
        pair.say(data(1, message(bytes(15_995))))
    resets = [frame for frame in pair.heard() if frame[0] == frames.RST_STREAM]
    assert [frames.word(frame[3]) for frame in resets] == [frames.FLOW_CONTROL_ERROR]
    await pair.handlers_ended()


async def test_a_server_full_of_calls_refuses_more(handlers: Handlers) -> None:
    pair = Pair(handlers, Limits(max_streams=2))
    pair.hello()
    for _ in range(3):
        pair.call(LATER, b"")
    ((kind, _, stream, payload),) = pair.heard()
    assert (kind, stream, frames.word(payload)) == (frames.RST_STREAM, 5, frames.REFUSED_STREAM)


async def test_a_fault_is_told_before_the_connection_ends(pair: Pair) -> None:
    pair.say(frames.head(0, frames.DATA, 0, 0))
    ((kind, _, _, payload),) = pair.heard()
    assert (kind, frames.word(payload[4:])) == (frames.GOAWAY, frames.PROTOCOL_ERROR)
    assert pair.connection.closing
    pair.connection.announce_end()
    pair.connection.end()
    await asyncio.sleep(0)
    assert pair.heard() == []


async def test_draining_tells_twice_and_ends_with_the_last_call(
    pair: Pair, handlers: Handlers
) -> None:
    pair.call(LATER, b"")
    pair.connection.announce_end()
    await asyncio.sleep(0)
    goaway, (_, _, _, payload) = pair.heard()
    assert frames.word(goaway[3]) == frames.MAX_STREAM_ID
    assert pair.call(LATER, b"") == 3
    pair.say(frames.ping(payload, frames.ACK))
    ((_, _, _, last),) = pair.heard()
    assert frames.word(last) == 3
    pair.call(ECHO, b"")
    assert kinds(pair.heard()) == [frames.RST_STREAM]
    for later in handlers.later:
        assert not pair.wire.closed
        later.answer(b"")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert kinds(pair.heard()) == [frames.HEADERS, frames.DATA, frames.HEADERS] * 2
    assert pair.wire.closed


async def test_ending_now_answers_what_is_under_way(pair: Pair, handlers: Handlers) -> None:
    pair.call(LATER, b"")
    pair.connection.end_now()
    _, (_, _, _, block) = pair.heard()
    assert b"grpc-status\x0214" in block
    assert handlers.seen == ["done"]
    assert pair.wire.closed


async def test_who_does_not_read_is_not_read_from(pair: Pair) -> None:
    pair.connection.pause_writing()
    assert not pair.wire.reading
    pair.connection.resume_writing()
    assert pair.wire.reading


async def test_a_long_segment_is_worked_off_in_turns(pair: Pair) -> None:
    segment = b""
    for _ in range(700):
        head = pair.headers(ECHO)
        segment += head + data(pair.next_id - 2, message(b""), end=True)
    pair.say(segment)
    first = len(pair.heard())
    assert not pair.wire.reading
    await asyncio.sleep(0)
    assert first < 700 * 3
    assert first + len(pair.heard()) == 700 * 3
    assert pair.wire.reading


async def test_a_peer_that_is_silent_is_asked_and_then_left(handlers: Handlers) -> None:
    pair = Pair(handlers, Limits(keepalive=100, keepalive_timeout=20))
    pair.hello()
    sweeper = Sweeper(pair.shared, pair.connections)
    now = pair.shared.loop.time()
    for later in (0, 50, 99):
        sweeper.sweep(now + later)
    assert pair.heard() == []
    sweeper.sweep(now + 101)
    await asyncio.sleep(0)
    ((kind, _, _, payload),) = pair.heard()
    assert kind == frames.PING
    pair.say(frames.ping(payload, frames.ACK))
    for later in (110, 150, 209):
        sweeper.sweep(now + later)
    assert pair.heard() == []
    sweeper.sweep(now + 211)
    sweeper.sweep(now + 230)
    assert not pair.wire.aborted
    sweeper.sweep(now + 232)
    assert pair.wire.aborted


async def test_who_says_nothing_at_first_is_left(handlers: Handlers) -> None:
    pair = Pair(handlers)
    sweeper = Sweeper(pair.shared, pair.connections)
    sweeper.sweep(pair.connection.made_at + keepalive.HANDSHAKE_SECONDS)
    assert not pair.wire.aborted
    sweeper.sweep(pair.connection.made_at + keepalive.HANDSHAKE_SECONDS + 1)
    assert pair.wire.aborted


async def test_an_answer_that_nobody_takes_is_given_up(pair: Pair) -> None:
    pair.call(BIG, b"")
    pair.heard()
    sweeper = Sweeper(pair.shared, pair.connections)
    now = pair.shared.loop.time()
    for second in range(100):
        sweeper.sweep(now + second)
    await asyncio.sleep(0)
    ((kind, _, _, payload),) = pair.heard()
    assert (kind, frames.word(payload)) == (frames.RST_STREAM, frames.CANCEL)
    assert pair.connection.sender.pending == 0


async def test_a_fault_of_a_handler_is_told_without_its_reason(
    pair: Pair, handlers: Handlers, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_call: Call, _body: bytes) -> bytes:
        raise ZeroDivisionError

    handlers.unary["/t.T/Broken"] = broken
    pair.call("/t.T/Broken", b"")
    ((_, _, _, block),) = pair.heard()
    assert b"etcdserver: internal error" in block
    assert "ZeroDivisionError" in caplog.text


async def test_an_error_of_later_is_a_status(pair: Pair, handlers: Handlers) -> None:
    pair.call(LATER, b"")
    handlers.later[0].refuse(RpcError(Code.NOT_FOUND, "none"))
    await asyncio.sleep(0)
    ((_, _, _, block),) = pair.heard()
    assert b"grpc-status\x015" in block


class Http1:
    """Notes what it is told."""

    busy = False

    def __init__(self) -> None:
        self.told: list[object] = []

    def connection_made(self, transport: object) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append("lost")

    def shutdown(self) -> None:
        self.told.append("shutdown")


async def test_a_connection_that_speaks_http_1_is_handed_over(handlers: Handlers) -> None:
    http1 = Http1()
    pair = Pair(handlers, http1=lambda: http1)
    assert pair.heard() == []
    pair.say(b"GET /hea")
    pair.say(b"lth HTTP/1.1\r\n\r\n")
    pair.connection.pause_writing()
    pair.connection.resume_writing()
    pair.connection.announce_end()
    pair.connection.end()
    pair.connection.connection_lost(None)
    requests = [b"GET /hea", b"lth HTTP/1.1\r\n\r\n"]
    assert http1.told == ["made", *requests, "pause", "resume", "shutdown", "lost"]
    assert pair.wire.written == b""


async def test_http_2_is_spoken_beside_it(handlers: Handlers) -> None:
    pair = Pair(handlers, http1=Http1)
    for octet in frames.PREFACE + frames.settings([]):
        pair.say(bytes((octet,)))
    assert kinds(pair.heard()) == [frames.SETTINGS, frames.WINDOW_UPDATE, frames.SETTINGS]
    pair.call(ECHO, b"x")
    assert kinds(pair.heard()) == [frames.HEADERS, frames.DATA, frames.HEADERS]


async def test_without_it_another_language_is_refused(handlers: Handlers) -> None:
    pair = Pair(handlers)
    pair.heard()
    pair.say(b"GET / HTTP/1.1\r\n")
    assert kinds(pair.heard()) == [frames.GOAWAY]


@pytest.mark.parametrize("payload", [b"", b"\0\0\0\1\0"], ids=["too short", "of itself"])
async def test_a_priority_that_is_wrong_resets_no_stream_that_is_not_open(
    pair: Pair, payload: bytes
) -> None:
    wrong = frames.head(len(payload), frames.PRIORITY, 0, 1) + payload
    pair.say(wrong)
    assert kinds(pair.heard()) == [frames.GOAWAY]


async def test_a_priority_that_is_wrong_resets_its_stream(pair: Pair) -> None:
    stream = pair.call(LATER, b"")
    pair.say(frames.head(0, frames.PRIORITY, 0, stream))
    assert pair.heard() == [(frames.RST_STREAM, 0, stream, b"\0\0\0\6")]
