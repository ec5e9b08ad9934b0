"""Windows: nothing is sent that they do not allow, everything is sent once they do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.transport.api import Pieces
from datastore.shim.transport.http2 import frames
from datastore.shim.transport.http2.flow import Flow, Ledger
from datastore.shim.transport.http2.outbound import Sender
from datastore.shim.transport.http2.settings import PeerSettings
from tests.support.http2_wire import message, split

TRAILERS = b"\x00\x01t\x01v"


class Peer:
    """Keeps the windows that it has given, and takes what is sent."""

    def __init__(self) -> None:
        self.window = frames.DEFAULT_WINDOW
        self.initial = frames.DEFAULT_WINDOW
        self.max_frame = frames.MAX_FRAME
        self.windows: dict[int, int] = {}
        self.got: dict[int, bytearray] = {}
        self.ended: list[int] = []
        self.reported: list[int] = []
        self.dirty: list[Sender] = []
        self.sender = Sender(
            Ledger(), self.take, self.schedule, self.reported.append, lambda: None
        )
        self.flows: dict[int, Flow] = {}

    def schedule(self, sender: Sender) -> None:
        sender.dirty = True
        self.dirty.append(sender)

    def turn(self) -> None:
        """Let the loop have its turn until nothing is left to do."""
        while self.dirty:
            self.dirty.pop().flush()

    def open(self, stream_id: int) -> None:
        self.windows[stream_id] = self.initial
        self.got[stream_id] = bytearray()
        self.flows[stream_id] = self.sender.open(stream_id)

    def take(self, data: bytes) -> None:
        for kind, flags, stream_id, payload in split(data):
            assert stream_id not in self.ended
            if kind == frames.DATA:
                assert len(payload) <= self.max_frame
                self.window -= len(payload)
                self.windows[stream_id] -= len(payload)
                assert self.window >= 0
                assert self.windows[stream_id] >= 0
                self.got[stream_id] += payload
            if flags & frames.END_STREAM:
                self.ended.append(stream_id)


STREAMS = (1, 3, 5)
SIZES = st.integers(0, 60_000)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.sampled_from(STREAMS), SIZES),
        st.tuples(st.just("pieces"), st.sampled_from(STREAMS), SIZES),
        st.tuples(st.just("finish"), st.sampled_from(STREAMS), st.just(0)),
        st.tuples(st.just("window"), st.sampled_from((0, *STREAMS)), st.integers(1, 100_000)),
        st.tuples(st.just("initial"), st.just(0), st.integers(0, 100_000)),
        st.tuples(st.just("frame"), st.just(0), st.integers(16_384, 50_000)),
        st.tuples(st.just("pause"), st.just(0), st.just(0)),
        st.tuples(st.just("resume"), st.just(0), st.just(0)),
        st.tuples(st.just("turn"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


def step(peer: Peer, sent: dict[int, bytearray], what: str, stream_id: int, number: int) -> None:
    sender = peer.sender
    flow = peer.flows.get(stream_id)
    if what == "message" and flow is not None and stream_id not in peer.reported:
        if flow.tail is None:
            body = bytes((stream_id,)) * number
            sent[stream_id] += message(body)
            assert sender.message(flow, body) == flow.pending
    elif what == "pieces" and flow is not None and stream_id not in peer.reported:
        if flow.tail is None:
            parts = [bytes((stream_id + part,)) * (number * part) for part in range(4)]
            sent[stream_id] += message(b"".join(parts))
            assert sender.enqueue(flow, Pieces(parts)) == flow.pending
    elif what == "finish" and flow is not None and stream_id not in peer.reported:
        sender.finish(flow, TRAILERS)
    elif what == "window" and stream_id == 0:
        peer.window += number
        sender.widen(number)
    elif what == "window" and flow is not None:
        peer.windows[stream_id] += number
        sender.widen_stream(flow, number)
    elif what == "initial":
        for known in peer.windows:
            peer.windows[known] += number - peer.initial
        peer.initial = number
        sender.apply(PeerSettings(initial_window=number, max_frame=peer.max_frame))
    elif what == "frame":
        peer.max_frame = number
        sender.apply(PeerSettings(initial_window=peer.initial, max_frame=number))
    elif what == "pause":
        sender.pause()
    elif what == "resume":
        sender.resume()
    elif what == "turn":
        peer.turn()


@given(STEPS)
def test_no_window_is_overrun_and_all_arrives_in_order(steps: list[tuple[str, int, int]]) -> None:
    peer = Peer()
    sent = {stream_id: bytearray() for stream_id in STREAMS}
    for stream_id in STREAMS:
        peer.open(stream_id)
    for what, stream_id, number in steps:
        # What was sent under the old windows arrives before the new ones are known.
        if what in {"initial", "frame"}:
            peer.turn()
        step(peer, sent, what, stream_id, number)
    peer.sender.resume()
    for stream_id in (0, *STREAMS):
        step(peer, sent, "window", stream_id, 20_000_000)
    peer.turn()
    assert peer.got == sent
    assert peer.sender.pending == 0
    assert sorted(peer.ended) == sorted(peer.reported)


def test_a_reply_that_fits_goes_out_whole() -> None:
    peer = Peer()
    peer.windows[1] = peer.initial
    peer.got[1] = bytearray()
    assert peer.sender.reply(1, b"answer")
    peer.turn()
    assert peer.got[1] == message(b"answer")
    assert peer.ended == [1]


def test_a_reply_that_does_not_fit_is_not_begun() -> None:
    peer = Peer()
    assert not peer.sender.reply(1, bytes(frames.MAX_FRAME))
    peer.sender.apply(PeerSettings(initial_window=5))
    assert not peer.sender.reply(1, b"x")
    assert not peer.dirty


def test_who_has_lowered_its_table_is_told_once_that_we_use_none() -> None:
    peer = Peer()
    written: list[bytes] = []
    sender = Sender(Ledger(), written.append, peer.schedule, peer.reported.append, lambda: None)
    sender.apply(PeerSettings(header_table=0))
    assert not sender.reply(1, b"x")
    sender.headers(1, b"\x88", end=True)
    sender.headers(3, b"\x88", end=True)
    peer.turn()
    assert [frame[3] for frame in split(b"".join(written))] == [b"\x20\x88", b"\x88"]


def test_a_long_block_is_continued() -> None:
    peer = Peer()
    written: list[bytes] = []
    sender = Sender(Ledger(), written.append, peer.schedule, peer.reported.append, lambda: None)
    sender.headers(1, bytes(40_000), end=True)
    peer.turn()
    found = split(b"".join(written))
    assert [(frame[0], frame[1], len(frame[3])) for frame in found] == [
        (frames.HEADERS, frames.END_STREAM, 16_384),
        (frames.CONTINUATION, 0, 16_384),
        (frames.CONTINUATION, frames.END_HEADERS, 7_232),
    ]
