"""Random servers that come and go, leases, compactions, pruning and faults on one log.

Whatever happens, in the end every server's copy is what a new server loads, and no lease that was
kept alive has ended.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore.shim.backends.api import Alarm, Batch
from datastore.shim.backends.memory import Fault, Faults, Fence, Log
from datastore.shim.errors import RequestError, StoreError
from datastore.shim.mvcc.auth import SERVER
from datastore.shim.mvcc.ops import (
    Compact,
    DeleteRange,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    SetAlarm,
    Write,
)
from datastore.shim.mvcc.store import Store
from tests.support.simulation import Server, quiet, settled, simulate

KEYS = [b"a", b"b", b"c", b"d"]
KEPT_TTL = 6


class RandomFaults(Faults):
    """Every fault that does not stop a server for good, with the given probability."""

    APPENDS = (
        Fault.UNAVAILABLE,
        Fault.LOST_APPLIED,
        Fault.LOST_NOT_APPLIED,
        Fault.ZOMBIE,
        Fault.OVERTAKEN,
        Fault.DEADLOCK,
    )

    def __init__(self, rng: random.Random, log: Log, rate: float) -> None:
        self.rng, self.log, self.rate = rng, log, rate

    def append(self, batch: Batch) -> Fault | None:
        if self.rng.random() < 0.1:
            self.log.release_zombies()
        return self.rng.choice(self.APPENDS) if self.rng.random() < self.rate else None

    def fence(self, zombie: Batch, batch: Batch) -> Fence:
        return self.rng.choice(list(Fence))

    def read(self, operation: str) -> Fault | None:
        if operation not in {"open", "load"} and self.rng.random() < self.rate / 4:
            return Fault.UNAVAILABLE
        return None

    def hint(self) -> bool:
        return self.rng.random() < 0.5


class World:
    """The log and whoever is there now."""

    def __init__(self, rng: random.Random, servers: int, rate: float, longest: float) -> None:
        self.rng = rng
        self.log = Log(clock=lambda: asyncio.get_running_loop().time(), cluster_id=7)
        self.faults = RandomFaults(rng, self.log, 0.0)
        self.rate = rate
        self.longest = longest
        self.count = servers
        self.running: list[Server] = []

    async def start(self) -> None:
        """Start the first servers; faults begin afterwards."""
        for _ in range(self.count):
            await self._start_one()
        self.faults.rate = self.rate

    async def replace(self) -> None:
        """Start one more server, then kill another."""
        rate, self.faults.rate = self.faults.rate, 0.0
        await self._start_one()
        self.faults.rate = rate
        self.running.pop(self.rng.randrange(self.count)).crash()

    async def _start_one(self) -> None:
        server = Server(self.log, self.rng, self.faults, longest=self.longest)
        await server.start(upkeep=True)
        self.running.append(server)

    async def write(self) -> None:
        server = self.rng.choice(self.running)
        try:
            await server.write(self._draw(server))
        except (StoreError, RequestError):
            return

    def _draw(self, server: Server) -> Write:
        rng = self.rng
        key, lease = rng.choice(KEYS), rng.randint(1, 4)
        match rng.randrange(10):
            case 0:
                return LeaseGrant(lease, rng.choice([2, 5, 60]))
            case 1:
                return LeaseRevoke(lease)
            case 2:
                return Compact(rng.randint(1, server.replica.store.revision))
            case 3:
                return DeleteRange(key, b"e" if rng.random() < 0.3 else b"")
            case 4 | 5:
                return Put(key, b"%d" % rng.randrange(1000), lease=lease)
            case 6 if rng.random() < 0.2:
                return SetAlarm(Alarm(1, 1), active=False)
            case _:
                return Put(key, rng.randbytes(8))


async def keep_alive(world: World) -> None:
    """Renew lease 99 through any server, and miss it never after an acknowledgement."""
    clock = asyncio.get_running_loop().time
    while True:
        try:
            await world.running[0].write(LeaseGrant(99, KEPT_TTL))
        except (StoreError, RequestError):
            if 99 in world.log.leases:
                break
            await asyncio.sleep(0.05)  # refused at once: time must pass for it to change
            continue
        break
    acknowledged = clock()
    while True:
        await asyncio.sleep(world.rng.uniform(0.1, KEPT_TTL / 3))
        server = world.rng.choice(world.running)
        began = clock()
        try:
            ttl = await server.expirer.keep_alive(99)
        except StoreError:
            continue
        if began - acknowledged < KEPT_TTL:
            assert ttl == KEPT_TTL, "it ended early"
        elif not ttl:
            return
        acknowledged = began


async def scenario(world: World, rounds: int) -> None:
    await world.start()
    keeping = asyncio.create_task(keep_alive(world))
    for _ in range(rounds):
        await asyncio.gather(*(world.write() for _ in range(world.rng.randint(1, 6))))
        await asyncio.sleep(world.rng.choice([0.0, 0.1, 1.5]))
        if world.rng.random() < 0.1:
            await world.replace()
    world.faults.rate = 0.0
    world.log.release_zombies()
    if keeping.done():
        await keeping
    keeping.cancel()
    await asyncio.sleep(2)
    await settled(world.log, *world.running)
    fresh = Server(world.log, world.rng, longest=0.0)
    await fresh.start()
    await settled(world.log, fresh, *world.running)
    for server in world.running:
        while not server.health.serving:  # noqa: ASYNC110 - it looks again after a pause
            await asyncio.sleep(0.01)
        await settled(world.log, server, fresh)
        assert describe(server.replica.store) == describe(fresh.replica.store)
        result = await server.reader.range(Range(b"a", b"e"), SERVER)
        expected = await fresh.reader.range(Range(b"a", b"e", revision=result.revision), SERVER)
        assert [bytes(kv) for kv in result.kvs] == [bytes(kv) for kv in expected.kvs]
    for server in (fresh, *world.running):
        await server.stop()


def describe(store: Store) -> object:
    """Return everything that clients can see."""
    first = max(1, store.compacted)
    found = [
        (key, revision, version.id)
        for revision in range(first, store.revision + 1)
        for key in KEYS
        if (version := store.at(key, revision)) is not None
    ]
    leases = {
        lease: (info.ttl, sorted(info.keys))
        for lease in store.leases.ids()
        if (info := store.leases.find(lease)) is not None
    }
    return store.revision, store.compacted, store.alarms, found, leases


def _run(seed: int, servers: int, rate: float, longest: float) -> None:
    # One seed, not hypothesis' own draws: those may end a run inside any of the tasks.
    with quiet():
        simulate(lambda: scenario(World(random.Random(seed), servers, rate, longest), rounds=12))


drawn = given(
    seed=st.integers(0, 2**32),
    servers=st.integers(1, 3),
    rate=st.sampled_from([0.0, 0.05, 0.2]),
    longest=st.sampled_from([0.001, 0.02, 0.2]),
)


@settings(max_examples=40)  # each is many seconds of several servers
@drawn
def test_every_copy_is_what_a_new_server_loads(
    seed: int, servers: int, rate: float, longest: float
) -> None:
    _run(seed, servers, rate, longest)


@pytest.mark.soak
@drawn
def test_every_copy_is_what_a_new_server_loads_in_thousands_of_runs(
    seed: int, servers: int, rate: float, longest: float
) -> None:
    _run(seed, servers, rate, longest)
