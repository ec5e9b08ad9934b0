"""Random writers, slow streams, compactions and cancellations against etcd's watch properties."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.mvcc.ops import DeleteRange, Put, Write
from datastore.shim.watch.watcher import State, Watcher, WatchSpec
from tests.support.history import Watch, check_complete, check_watch
from tests.support.simulation import simulate
from tests.support.watching import Recorder, World

KEYS = [b"a/1", b"a/2", b"a/3", b"b", b"b/1"]
RANGES = [(b"a/1", b""), (b"a/", b"a0"), (b"a/2", b"b\x00"), (b"a/2", b"\x00"), (b"\x00", b"\x00")]


@dataclass(frozen=True)
class Commit:
    writes: Sequence[Write]


@dataclass(frozen=True)
class Register:
    stream: int
    range: int
    start: int  # how far back from the current revision; negative: in the future
    prev_kv: bool
    no_put: bool
    no_delete: bool
    fragment: bool


@dataclass(frozen=True)
class Cancel:
    number: int


@dataclass(frozen=True)
class Compaction:
    back: int
    prune: bool


@dataclass(frozen=True)
class Stall:
    stream: int


@dataclass(frozen=True)
class Drain:
    stream: int


@dataclass(frozen=True)
class Progress:
    stream: int


@dataclass(frozen=True)
class Tick:
    pass


@dataclass(frozen=True)
class Hold:
    """Keep reads of history waiting, or let them go."""

    held: bool


@dataclass(frozen=True)
class Turns:
    count: int


@dataclass(frozen=True)
class Reload:
    """Commit what is not published, then go on with the store as loaded anew."""

    writes: Sequence[Write]


Step = (
    Commit
    | Register
    | Cancel
    | Compaction
    | Stall
    | Drain
    | Progress
    | Tick
    | Hold
    | Turns
    | Reload
)

streams = st.integers(0, 2)
puts = st.tuples(st.sampled_from(KEYS), st.binary(max_size=40)).map(lambda it: Put(*it))
deletes = st.sampled_from([DeleteRange(b"a/1"), DeleteRange(b"b"), DeleteRange(b"a/", b"a0")])
writes = st.lists(st.one_of(puts, puts, deletes), min_size=1, max_size=4)
rarely = st.sampled_from([False, False, False, True])
registers = st.builds(
    Register,
    streams,
    st.integers(0, len(RANGES) - 1),
    st.integers(-2, 12),
    st.booleans(),
    rarely,
    rarely,
    st.booleans(),
)
steps: st.SearchStrategy[Step] = st.one_of(
    *[st.builds(Commit, writes) for _ in range(8)],
    registers,
    st.builds(Cancel, st.integers(0, 20)),
    st.builds(Compaction, st.integers(0, 6), st.booleans()),
    st.builds(Stall, streams),
    st.builds(Drain, streams),
    st.builds(Progress, streams),
    st.builds(Tick),
    st.builds(Hold, st.booleans()),
    st.builds(Turns, st.integers(1, 6)),
    st.builds(Reload, writes),
)


@dataclass
class Scene:
    """A world in which the steps happen."""

    world: World
    streams: list[Recorder] = field(default_factory=list)
    watchers: list[tuple[Watcher, Watch]] = field(default_factory=list)

    async def play(self, step: Step) -> None:
        world = self.world
        match step:
            case Commit(ops):
                world.write(*ops)
            case Register():
                self._register(step)
            case Cancel(number) if self.watchers:
                watcher, watch = self.watchers[number % len(self.watchers)]
                world.hub.cancel(watcher)
                if not watch.canceled_at:
                    self._stream(watcher).forget(watcher)
            case Compaction(back, prune):
                self._compact(world.store.revision - back)
                if prune:
                    world.prune()
            case Stall(number):
                self.streams[number].stalled = True
            case Drain(number):
                self.streams[number].drain()
            case Progress(number):
                world.hub.request_progress(self.streams[number])
            case Tick():
                world.hub.progress_tick()
            case Hold(held):
                (world.open.clear if held else world.open.set)()
            case Turns(count):
                for _ in range(count):
                    await asyncio.sleep(0)
            case Reload(ops):
                world.commit(*ops, publish=False)
                world.hub.reset(world.store)
            case _:
                pass

    def _stream(self, watcher: Watcher) -> Recorder:
        return next(stream for stream in self.streams if watcher in stream.watches)

    def _register(self, step: Register) -> None:
        key, end = RANGES[step.range]
        start = self.world.store.revision - step.start if step.start else 0
        spec = WatchSpec(
            key,
            end,
            max(start, 0),
            prev_kv=step.prev_kv,
            no_put=step.no_put,
            no_delete=step.no_delete,
            progress_notify=True,
            fragment=step.fragment,
        )
        stream = self.streams[step.stream]
        self.watchers.append(self.world.watch(stream, spec, len(self.watchers)))

    def _compact(self, revision: int) -> None:
        store = self.world.store
        if store.compacted < revision and revision > 0:
            self.world.compact(revision)


async def play(scene: Scene, program: Sequence[Step]) -> None:
    async with scene.world as world:
        scene.streams = [world.stream() for _ in range(3)]
        for step in program:
            await scene.play(step)
        world.open.set()
        for stream in scene.streams:
            stream.drain()
            world.hub.request_progress(stream)
        await world.settle()
        check(scene)


def check(scene: Scene) -> None:
    world = scene.world
    revision = world.store.revision
    for watcher, watch in scene.watchers:
        check_watch(watch, world.log)
        if watcher.state is State.DONE:
            continue
        waits = watch.start_revision > revision
        assert watcher.state is (State.WAITING if waits else State.SYNCED)
        check_complete(watch, world.log, revision)
    for stream in scene.streams:
        states = {watcher.state for watcher, _ in scene.watchers if watcher.feed.stream is stream}
        if State.SYNCED in states and State.WAITING not in states:
            assert stream.manual[-1] == revision


@given(
    st.lists(steps, min_size=20, max_size=80),
    st.sampled_from([0, 300, 1 << 20]),
    st.sampled_from([0, 2000, 1 << 20]),
    st.sampled_from([0, 150]),
)
def test_watches_keep_the_nine_properties(
    program: Sequence[Step], cache_bytes: int, ring_bytes: int, stream_bytes: int
) -> None:
    async def main() -> None:
        world = World(
            cache_bytes=cache_bytes,
            ring_bytes=ring_bytes,
            stream_bytes=stream_bytes,
            fragment_bytes=120,
        )
        await play(Scene(world), program)

    simulate(main)
