"""Peers that stand still, that hang on for ever, and the end of the server itself."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from tests.contract.transport.conftest import Target, echo_server
from tests.support.echo_server import EchoServer
from tests.support.http2_client import (
    ACK,
    CANCEL,
    DATA,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    WINDOW_UPDATE,
    Client,
    Closed,
    frame,
    message,
    number,
    settings,
)

MEBIBYTE = 1 << 20
WIDE = (INITIAL_WINDOW_SIZE, 0x7FFFFFFF)
STALL_SECONDS = 90.0


def stats(target: Target) -> dict[str, int]:
    with target.connect() as client:
        return dict(json.loads(client.call("Stats").message))


# Answers that nobody takes


@pytest.mark.parametrize("method", ["Size", "Fresh"], ids=["shared", "of their own"])
def test_large_answers_that_nobody_reads_are_not_all_made(victim, method):
    with victim.connect(WIDE, receive_buffer=4096) as client:
        client.send(frame(WINDOW_UPDATE, 0, 0, number(1 << 30)))
        for _ in range(60):
            stream = client.open(method)
            client.send(frame(DATA, 1, stream, message(b"%d" % (10 * MEBIBYTE))))
        with victim.connect() as other:
            for _ in range(20):
                other.ping()


def test_answers_of_which_one_octet_is_left_hold_little(victim):
    """What has been sent must not be kept for the rest's sake."""
    size = 2 * MEBIBYTE
    with victim.connect((INITIAL_WINDOW_SIZE, size + 4)) as client:
        client.send(frame(WINDOW_UPDATE, 0, 0, number(1 << 30)))
        for _ in range(60):
            stream = client.open("Fresh")
            client.send(frame(DATA, 1, stream, message(b"%d" % size)))
            client.ping()


def test_a_reader_that_wakes_up_gets_all_the_answers(victim):
    with victim.connect(WIDE, receive_buffer=4096) as client:
        client.send(frame(WINDOW_UPDATE, 0, 0, number(1 << 30)))
        for _ in range(12):
            stream = client.open("Fresh")
            client.send(frame(DATA, 1, stream, message(b"%d" % (4 * MEBIBYTE))))
        with victim.connect() as other:
            other.ping()
        size = ended = 0
        while ended < 12:
            received = client.frame()
            ended += received.ends
            size += len(received.payload) if received.kind == DATA else 0
        assert size == 12 * (4 * MEBIBYTE + 5)


def test_streams_whose_window_stays_shut_hold_little(victim):
    with victim.connect((INITIAL_WINDOW_SIZE, 0)) as client:
        streams = []
        for _ in range(900):
            stream = client.open("Size")
            client.send(frame(DATA, 1, stream, message(b"10000")))
            streams.append(stream)
        client.ping()
        assert stats(victim)["pending"] > 0
        client.send(frame(WINDOW_UPDATE, 0, 0, number(1 << 30)), settings(WIDE))
        ended: set[int] = set()
        while len(ended) < 900:
            received = client.frame()
            if received.ends:
                ended.add(received.stream)
        assert ended == set(streams)


def test_requests_that_wait_for_earlier_answers_are_bounded(victim):
    with victim.connect((INITIAL_WINDOW_SIZE, 0)) as client:
        for _ in range(4):
            stream = client.open("Size")
            client.data(stream, message(b"%d" % (10 * MEBIBYTE)), end=True)
        body = message(bytes(16_000))
        for _ in range(80):
            for _ in range(100):
                stream = client.open("Echo")
                client.data(stream, body, end=True)
            client.ping()


def test_a_stream_of_messages_that_nobody_reads_stops_its_handler(victim):
    with victim.connect(receive_buffer=4096) as client:
        stream = client.open("Count")
        client.data(stream, message(b"1000 1000000"), end=True)
        client.ping()
        with victim.connect() as other:
            other.ping()
            assert stats(victim)["pending"] < 4 * MEBIBYTE


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_an_answer_that_is_not_taken_for_long_is_given_up(victim):
    with victim.connect((INITIAL_WINDOW_SIZE, 0)) as client:
        stream = client.open("Size")
        client.data(stream, message(b"10000"), end=True)
        stalled = client.until(lambda f: f.kind == RST_STREAM, seconds=STALL_SECONDS)
        assert (stalled.stream, stalled.number) == (stream, CANCEL)
        assert stats(victim)["pending"] == 0


# Requests that never end


def test_messages_that_never_end_hold_no_more_than_the_limit(victim):
    with victim.connect() as client:
        for _ in range(20):
            stream = client.open("Echo")
            client.data(stream, b"\0" + number(2 * MEBIBYTE) + bytes(MEBIBYTE))
        client.ping()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_small_pieces_of_messages_are_not_kept_as_such(victim):
    """An object for every two octets would be dozens of times as much."""
    with victim.connect() as client:
        for _ in range(4):
            stream = client.open("Echo")
            client.data(stream, b"\0" + number(MEBIBYTE))
            pieces = frame(DATA, 0, stream, b"xy") * 1000
            for _ in range(300):
                client.send(pieces)
        client.ping()


# Calls that come and go


def come_and_go(target: Target, calls: int) -> None:
    """Begin calls, cancel them all; slowly enough to be no attack."""
    with target.connect() as client:
        client.send(frame(WINDOW_UPDATE, 0, 0, number(1 << 30)))
        for _ in range(calls // 500):
            streams = [client.open("Wait") for _ in range(500)]
            for stream in streams:
                client.data(stream, message(b"come-and-go"))
            begun = 0
            while begun < 500:
                begun += client.frame().kind == DATA
            client.send(*[frame(RST_STREAM, 0, stream, number(CANCEL)) for stream in streams])
            client.ping()
    while stats(target)["streams"]:
        pass


def test_calls_that_are_cancelled_leave_nothing(victim):
    come_and_go(victim, 1000)
    cancelled = victim.tell("come-and-go cancelled")
    assert cancelled == victim.tell("come-and-go done") == victim.tell("come-and-go begun")


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_hundred_thousand_cancelled_calls_leave_no_memory(tmp_path):
    server, tls = echo_server("http2", tmp_path, secure=False)
    with server:
        target = Target(server, tls)
        come_and_go(target, 10_000)
        before = server.rss_bytes
        come_and_go(target, 100_000)
        assert server.rss_bytes - before < 8 * MEBIBYTE


# Connections that do nothing


def test_connections_without_a_beginning_are_closed(targets):
    """After 10 s, TLS handshakes and prefaces alike."""
    plain, secure = targets("http2", False), targets("http2", True)
    with ExitStack() as stack:
        silent = [
            stack.enter_context(Client(target.server.url, hello=False))
            for target in (plain, plain, plain, secure)
        ]
        silent[1].send(PREFACE[:10])
        silent[2].send(PREFACE)
        silent.append(stack.enter_context(secure.silent()))
        for client in silent:
            assert client.goaway() in {None, 0, PROTOCOL_ERROR}


def test_a_peer_that_does_not_answer_a_ping_is_closed(tmp_path):
    with EchoServer("http2", tmp_path, keepalive=0.5, keepalive_timeout=0.5) as server:
        with Client(server.url) as living:
            for _ in range(2):
                ping = living.until(lambda f: f.kind == PING and not f.flags & ACK)
                living.send(frame(PING, ACK, payload=ping.payload))
            living.ping()
        with Client(server.url) as dead:
            dead.until(lambda f: f.kind == PING and not f.flags & ACK)
            dead.goaway()


def test_pings_more_often_than_allowed_end_an_idle_connection(tmp_path):
    """As gRPC has it: ENHANCE_YOUR_CALM, too_many_pings."""
    with EchoServer("http2", tmp_path, min_ping=60.0) as server, Client(server.url) as client:
        with pytest.raises(Closed):
            for _ in range(10_000):
                client.ping()
        assert client.goaway() == ENHANCE_YOUR_CALM


def test_more_connections_than_allowed_are_closed_at_once(tmp_path):
    with EchoServer("http2", tmp_path, max_connections=3) as server, ExitStack() as stack:
        server.complaints = ("too many connections",)
        clients = [stack.enter_context(Client(server.url)) for _ in range(3)]
        for client in clients:
            client.ping()
        with Client(server.url, hello=False) as another:
            assert another.goaway() is None
        clients.pop().close()
        while True:
            try:
                with Client(server.url) as another:
                    assert another.call("Echo", b"x").message == b"x"
                break
            except Closed:  # the server has not noticed yet
                pass


def test_more_streams_than_allowed_are_refused(tmp_path):
    with EchoServer("http2", tmp_path, max_streams=5) as server, Client(server.url) as client:
        streams = [client.open("Wait") for _ in range(6)]
        assert client.reset_of(streams[5]) == REFUSED_STREAM
        client.send(frame(RST_STREAM, 0, streams[0], number(CANCEL)))
        client.ping()
        assert client.call("Echo", b"x").message == b"x"


def test_handlers_that_go_on_after_a_reset_count_until_they_end(tmp_path):
    """Else a client could have any number of them at work."""
    with EchoServer("http2", tmp_path, max_streams=5) as server, Client(server.url) as client:
        streams = [client.open("Stubborn") for _ in range(5)]
        for _ in streams:
            client.until(lambda f: f.kind == DATA)
        client.send(*[frame(RST_STREAM, 0, stream, number(CANCEL)) for stream in streams])
        refused = client.open("Stubborn")
        assert client.reset_of(refused) == REFUSED_STREAM
        with Client(server.url) as other:
            assert other.call("Release").status == "0"
        while client.call("Echo", b"x").reset == REFUSED_STREAM:
            pass  # they are on their way out
        assert client.call("Echo", b"x").message == b"x"


# The end


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_the_end_is_told_twice_so_that_no_call_is_lost(tmp_path, secure):
    """RFC 9113 section 6.8."""
    server, tls = echo_server("http2", tmp_path, secure=secure)
    with server, Client(server.url, tls=tls) as client:
        client.ping()
        running = client.open("Mirror")
        client.data(running, message(b"before"))
        client.until(lambda f: f.kind == DATA)
        server.terminate()
        first = client.until(lambda f: f.kind == GOAWAY)
        assert (first.number, first.payload[4:8]) == (0x7FFFFFFF, number(0))
        ping = client.until(lambda f: f.kind == PING)
        late = client.open("Echo")  # on its way when the server said so
        client.data(late, message(b"late"), end=True)
        client.send(frame(PING, ACK, payload=ping.payload))
        assert client.answer(late).message == b"late"
        second = client.until(lambda f: f.kind == GOAWAY)
        assert (second.number, second.payload[4:8]) == (late, number(0))
        client.data(running, message(b"after"), end=True)
        assert client.answer(running).body == message(b"after") + message(b"half-closed")
        assert client.goaway() == 0
        assert server.wait() == 0


def test_a_call_that_does_not_end_is_ended_with_unavailable(tmp_path):
    with EchoServer("http2", tmp_path, grace=0.5) as server, Client(server.url) as client:
        stream = client.open("Wait")
        client.data(stream, message(b"never"))
        client.until(lambda f: f.kind == DATA)
        server.terminate()
        answer = client.answer(stream)
        assert answer.status == "14"
        assert server.wait() == 0
