"""Flow control both ways: what is sent is what the windows allow, and never waits without need."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.echo_server import EchoServer
from tests.support.http2_client import (
    DATA,
    FLOW_CONTROL_ERROR,
    INITIAL_WINDOW_SIZE,
    WINDOW_UPDATE,
    Client,
    Closed,
    Frame,
    frame,
    message,
    number,
)
from tests.support.http2_client import settings as settings_frame

ONLY_OURS = pytest.mark.parametrize("transport", ["http2"], indirect=True)
MAX = 0x7FFFFFFF
INITIAL = 65_535


class Counting(Client):
    """Counts the octets of DATA that come on each stream."""

    def __init__(self, url: str, *pairs: tuple[int, int]) -> None:
        super().__init__(url, *pairs)
        self.received: dict[int, int] = {}
        self.ping()

    def frame(self, seconds: float = 20.0) -> Frame:
        found = super().frame(seconds)
        if found.kind == DATA:
            self.received[found.stream] = self.received.get(found.stream, 0) + len(found.payload)
        return found

    def ask(self, size: int) -> int:
        """Ask for an answer of so many octets, with its prefix, and return the stream."""
        stream = self.open("Size")
        self.data(stream, message(b"%d" % (size - 5)), end=True)
        return stream

    def settle(self) -> None:
        """Wait until the server has sent what it may: an answer needs one more turn at most."""
        self.ping()
        self.ping()


@pytest.fixture
def client(target):
    with Counting(target.server.url, (INITIAL_WINDOW_SIZE, 10)) as client:
        yield client


@ONLY_OURS
def test_a_stream_gets_what_its_window_allows(client):
    stream = client.ask(1000)
    client.settle()
    assert client.received == {stream: 10}
    client.send(frame(WINDOW_UPDATE, 0, stream, number(5)))
    client.settle()
    assert client.received == {stream: 15}
    client.send(frame(WINDOW_UPDATE, 0, stream, number(985)))
    client.until(lambda f: f.ends)
    assert client.received == {stream: 1000}


@ONLY_OURS
def test_new_settings_move_the_windows_of_streams_below_zero_and_back(client):
    """RFC 9113 section 6.9.2."""
    stream = client.ask(1000)
    client.settle()
    client.send(settings_frame((INITIAL_WINDOW_SIZE, 0)))
    client.send(frame(WINDOW_UPDATE, 0, stream, number(10)))
    client.settle()
    assert client.received == {stream: 10}
    client.send(frame(WINDOW_UPDATE, 0, stream, number(1)))
    client.settle()
    assert client.received == {stream: 11}
    client.send(settings_frame((INITIAL_WINDOW_SIZE, 4)))
    client.settle()
    assert client.received == {stream: 15}
    client.send(settings_frame((INITIAL_WINDOW_SIZE, 1000)))
    client.until(lambda f: f.ends)


@ONLY_OURS
def test_all_streams_share_the_window_of_the_connection(target):
    with Counting(target.server.url, (INITIAL_WINDOW_SIZE, MAX)) as client:
        streams = [client.ask(50_000) for _ in range(3)]
        client.settle()
        assert sum(client.received.values()) == INITIAL
        client.send(frame(WINDOW_UPDATE, 0, 0, number(MAX - INITIAL)))
        while sum(client.received.values()) < 150_000:
            client.frame()
        assert client.received == dict.fromkeys(streams, 50_000)


@ONLY_OURS
def test_a_large_answer_leaves_room_for_a_small_one(target):
    """Each stream has its turn."""
    with Counting(target.server.url, (INITIAL_WINDOW_SIZE, MAX)) as client:
        client.send(frame(WINDOW_UPDATE, 0, 0, number(1 << 28)))
        large = client.ask(32 << 20)
        small = client.ask(100_000)
        client.until(lambda f: f.ends and f.stream == small)
        assert client.received[large] < 20 << 20
        client.until(lambda f: f.ends and f.stream == large)


@ONLY_OURS
def test_a_window_of_the_connection_beyond_the_largest_ends_it(client):
    client.send(frame(WINDOW_UPDATE, 0, 0, number(MAX)))
    assert client.goaway() == FLOW_CONTROL_ERROR


@ONLY_OURS
def test_a_window_of_a_stream_beyond_the_largest_ends_that(client):
    stream = client.ask(1000)
    client.send(frame(WINDOW_UPDATE, 0, stream, number(MAX)))
    assert client.reset_of(stream) == FLOW_CONTROL_ERROR
    client.ping()


@ONLY_OURS
def test_settings_that_move_a_window_beyond_the_largest_end_the_connection(client):
    stream = client.ask(1000)
    client.send(frame(WINDOW_UPDATE, 0, stream, number(MAX - 100)))
    client.send(settings_frame((INITIAL_WINDOW_SIZE, 1000)))
    assert client.goaway() == FLOW_CONTROL_ERROR


def test_answers_that_may_not_be_sent_yet_come_when_the_window_opens(target):
    with Counting(target.server.url, (INITIAL_WINDOW_SIZE, 0)) as client:
        streams = [client.ask(60) for _ in range(100)]
        client.settle()
        assert not sum(client.received.values())
        client.send(settings_frame((INITIAL_WINDOW_SIZE, 100)))
        for _ in streams:
            client.until(lambda f: f.ends)
        assert client.received == dict.fromkeys(streams, 60)


# What the client sends


@ONLY_OURS
@pytest.mark.parametrize("method", ["Ignore", "Mirror"])
def test_more_than_the_window_allows_is_a_flow_control_error(target, method):
    """The handler of the first reads nothing, that of the second cannot get rid of its answers."""
    with target.connect() as client:
        stream = client.open(method)
        body = message(bytes(100_000))
        with suppress(Closed):
            while stream not in client.resets:
                client.data(stream, body)
                client.ping()
        assert client.resets.get(stream) == FLOW_CONTROL_ERROR or client.goaways == [
            FLOW_CONTROL_ERROR
        ]


@ONLY_OURS
def test_a_handler_that_reads_nothing_holds_up_its_own_stream_only(target):
    with target.connect() as client:
        ignored = client.open("Ignore")
        client.data(ignored, message(b"ignored"))
        client.data(ignored, message(bytes(900_000)))
        client.ping()
        summed = client.open("Sum")
        for _ in range(20):
            client.data(summed, message(bytes(1_000_000)))
            client.ping()
        client.data(summed, b"", end=True)
        assert client.answer(summed).message == b"20 messages, 20000000 bytes"
        assert client.credits[ignored] < 100
        assert client.credits[0] > 20_000_000


# Any order of events


@dataclass
class Model:
    """What the windows of a connection allow the server to have sent."""

    initial: int = INITIAL
    connection: int = INITIAL
    windows: dict[int, int] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)

    @property
    def sendable(self) -> int:
        """How much can be sent now."""
        return min(
            max(self.connection, 0),
            sum(min(max(self.windows[s], 0), self.left[s]) for s in self.left),
        )


events = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from((6, 100, 5000, 20_000, 70_000))),
    st.tuples(st.just("settings"), st.sampled_from((0, 1, 10, 1000, 16_384, 65_535, 100_000))),
    st.tuples(st.just("connection"), st.sampled_from((1, 100, 20_000, 100_000))),
    st.tuples(st.just("stream"), st.sampled_from((1, 100, 20_000, 100_000))),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EchoServer("http2", tmp_path_factory.mktemp("windows")) as server:
        yield server


@settings(max_examples=40)
@given(script=st.lists(events, max_size=25))
def test_the_server_sends_exactly_what_the_windows_allow(server, script):
    check(server, script)


@pytest.mark.soak
@given(script=st.lists(events, max_size=60))
def test_the_server_sends_exactly_what_the_windows_allow_for_long(server, script):
    check(server, script)


def check(server: EchoServer, script: list[tuple[str, int]]) -> None:
    model = Model()
    with Counting(server.url) as client:
        for what, amount in script:
            if what == "ask":
                stream = client.ask(amount)
                model.windows[stream], model.left[stream] = model.initial, amount
            elif what == "settings":
                for stream in model.windows:
                    model.windows[stream] += amount - model.initial
                model.initial = amount
                client.send(settings_frame((INITIAL_WINDOW_SIZE, amount)))
            elif what == "connection":
                model.connection += amount
                client.send(frame(WINDOW_UPDATE, 0, 0, number(amount)))
            elif model.left:
                stream = max(model.left)
                model.windows[stream] += amount
                client.send(frame(WINDOW_UPDATE, 0, stream, number(amount)))
            before = dict(client.received)
            client.settle()
            sent = {s: n - before.get(s, 0) for s, n in client.received.items()}
            assert sum(sent.values()) == model.sendable
            for stream, size in sent.items():
                model.connection -= size
                model.windows[stream] -= size
                model.left[stream] -= size
            assert min(model.left.values(), default=0) >= 0
            assert all(model.windows[s] >= 0 or not n for s, n in sent.items())
