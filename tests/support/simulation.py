"""Several servers in one process on one log, under a deterministic scheduler.

Time is virtual: the loop jumps to the next timer instead of waiting, so a simulated minute costs
milliseconds and a run depends on nothing but its random source. Calls to the backend go through
lanes that wait a drawn time before and after each call, so replies, tails and hints overtake one
another as they do between real servers.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar, TypeVarTuple

from datastore.shim.backends.api import Member, to_revision
from datastore.shim.backends.memory import Faults, Log, MemoryBackend
from datastore.shim.expirer import Expirer
from datastore.shim.follower import follow
from datastore.shim.health import Health
from datastore.shim.lanes import Lanes
from datastore.shim.members import Members
from datastore.shim.mvcc.auth import SERVER, Caller
from datastore.shim.mvcc.ops import Write
from datastore.shim.mvcc.version import Change
from datastore.shim.pruner import Pruner
from datastore.shim.reader import Reader
from datastore.shim.replica import Replica
from datastore.shim.writer import Writer

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Instant(selectors.SelectSelector):
    """Selects nothing; what would be waited for passes on the virtual clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("deadlock: nothing is due and nothing can happen any more")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps."""

    def __init__(self) -> None:
        self._instant = _Instant()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.now


def simulate(main: Callable[[], Awaitable[None]], limit_seconds: float = 3600.0) -> None:
    """Run `main` in virtual time; fail if it takes longer than an hour of it."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def bounded() -> None:
            async with asyncio.timeout(limit_seconds):
                await main()

        runner.run(bounded())


class DrawnLane:
    """A lane that takes a drawn time, one call after the other."""

    def __init__(self, rng: random.Random, log: Log, longest: float) -> None:
        self._rng = rng
        self._log = log
        self._longest = longest
        self._turn = asyncio.Lock()

    async def __call__(self, call: Callable[[*Ts], T], /, *args: *Ts) -> T:
        async with self._turn:
            await self._wait()
            if _name(call) == "__enter__":
                while self._log.turn_held:  # noqa: ASYNC110 - virtual time costs nothing
                    await asyncio.sleep(0.001)
            try:
                return call(*args)
            finally:
                if _name(call) != "__exit__":
                    await self._wait()

    async def _wait(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.0, self._longest))

    def close(self) -> None:
        pass


def _name(call: object) -> str:
    return getattr(call, "__name__", "")


@dataclass
class Recorder:
    """A publisher that keeps what it is told, in the order of telling."""

    told: list[tuple[int, tuple[tuple[bytes, int, int], ...]]] = field(default_factory=list)
    resets: int = 0
    revision: int = 1

    def publish(self, revision: int, changes: Sequence[Change]) -> None:
        self.revision = revision
        self.told.append(
            (revision, tuple((c.version.key, c.version.id, c.version.version) for c in changes))
        )

    def compacted(self, revision: int) -> None:
        pass

    def reset(self, store: object) -> None:
        self.resets += 1


class Server:
    """One server of a simulation."""

    def __init__(
        self, log: Log, rng: random.Random, faults: Faults | None = None, *, longest: float = 0.01
    ) -> None:
        self.backend = MemoryBackend(log, faults, shared=True, inline=False)
        lanes = Lanes(*(DrawnLane(rng, log, longest) for _ in Lanes._fields))
        self.health = Health()
        self.replica = Replica(self.backend, lanes, self.health, cache_bytes=1 << 20)
        self.recorder = Recorder()
        self.writer = Writer(self.replica)
        self.reader = Reader(self.replica)
        self.expirer = Expirer(self.replica, self.writer)
        member = Member(rng.getrandbits(63), "sim", (), 0)
        self.reads: int | None = None
        """The oldest revision that its watchers read."""
        self.members = Members(self.replica, member, lambda: self.reads)
        self.pruner = Pruner(self.replica, self.members, grace_seconds=1.0)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *, upkeep: bool = False) -> None:
        await self.replica.start()
        self.replica.attach(self.recorder)
        runs = [self.writer.run(), follow(self.replica)]
        if upkeep:
            runs += [self.expirer.run(), self.pruner.run(), self.members.run()]
        self._tasks = [asyncio.create_task(run) for run in runs]

    async def write(
        self, write: Write, deadline: float | None = None, caller: Caller = SERVER
    ) -> object:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error  # a part has died, and a server would end
        return await self.writer.write(write, caller, 64, deadline)

    async def stop(self) -> None:
        for task in self._tasks[1:]:
            task.cancel()
        await self.writer.stop()
        self._tasks[0].cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.replica.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def crash(self) -> None:
        """End at once, as SIGKILL does: whatever is under way has no reply."""
        for task in self._tasks:
            task.cancel()
        self.backend.close()


async def settled(log: Log, *servers: Server) -> None:
    """Wait until every server has applied the whole log."""
    while any(  # noqa: ASYNC110 - virtual time costs nothing
        s.replica.position.change != log.head.change for s in servers
    ):
        await asyncio.sleep(0.01)


def committed(log: Log) -> Iterator[tuple[int, tuple[tuple[bytes, int, int], ...]]]:
    """Give what a recorder must have been told if it listened from the start."""
    revision, changes = 0, []
    for row in log.all_rows():
        now = to_revision(row.meta.id)
        if now != revision and changes:
            yield revision, tuple(changes)
            changes = []
        revision = now
        changes.append((row.meta.key, row.meta.id, row.meta.version))
    if changes:
        yield revision, tuple(changes)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the log of lost replies, of which a simulation makes thousands."""
    import logging

    logger = logging.getLogger("datastore.shim")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
