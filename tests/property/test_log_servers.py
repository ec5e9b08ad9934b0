"""Random servers, clients, delays and faults on one log: every answer fits one history.

Revisions are the order of the history, so linearizability is checked directly: what a client was
told must be the state at the revision it was told, an acknowledged write is in the log exactly
once, and an operation that began after another had ended has no smaller revision.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.backends.api import Batch, Row, to_revision
from datastore.shim.backends.memory import Fault, Faults, Fence, Log
from datastore.shim.errors import StoreError
from datastore.shim.mvcc.auth import SERVER
from datastore.shim.mvcc.ops import (
    Compare,
    CompareTarget,
    DeleteRange,
    DeleteRangeResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    TxnResult,
)
from tests.support.simulation import Server, committed, quiet, settled, simulate

KEYS = [b"a", b"b", b"c"]


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

    def __init__(self, rng: random.Random, log: Log) -> None:
        self.rng, self.log, self.rate = rng, log, 0.0

    def append(self, batch: Batch) -> Fault | None:
        if self.rng.random() < 0.1:
            self.log.release_zombies()
        return self.rng.choice(self.APPENDS) if self.rng.random() < self.rate else None

    def fence(self, zombie: Batch, batch: Batch) -> Fence:
        return self.rng.choice(list(Fence))

    def read(self, operation: str) -> Fault | None:
        if operation in {"head", "commit", "tail"} and self.rng.random() < self.rate / 4:
            return Fault.UNAVAILABLE
        return None

    def hint(self) -> bool:
        return self.rng.random() < 0.5


@dataclass
class Told:
    """One operation as its client saw it; revision None: no answer."""

    kind: str
    key: bytes
    value: bytes
    began: float
    ended: float
    revision: int | None = None
    seen: bytes | None = None
    succeeded: bool = True


@dataclass
class Client:
    rng: random.Random
    servers: list[Server]
    number: int
    history: list[Told]

    async def run(self, operations: int) -> None:
        loop = asyncio.get_running_loop()
        for n in range(operations):
            server = self.rng.choice(self.servers)
            kind = self.rng.choice(["put", "get", "swap", "delete"])
            told = Told(kind, self.rng.choice(KEYS), b"%d-%d" % (self.number, n), loop.time(), 0)
            self.history.append(told)
            try:
                await getattr(self, kind)(server, told)
            except StoreError:
                told.revision = None
            told.ended = loop.time()

    async def put(self, server: Server, told: Told) -> None:
        result = await server.write(Put(told.key, told.value))
        assert isinstance(result, PutResult)
        told.revision = result.revision

    async def delete(self, server: Server, told: Told) -> None:
        result = await server.write(DeleteRange(told.key))
        assert isinstance(result, DeleteRangeResult)
        told.revision, told.succeeded = result.revision, bool(result.deleted)

    async def get(self, server: Server, told: Told) -> None:
        result = await server.reader.range(Range(told.key), SERVER)
        told.revision = result.revision
        told.seen = result.kvs[0] if result.kvs else None

    async def swap(self, server: Server, told: Told) -> None:
        compare = Compare(CompareTarget.VALUE, 0, told.key, b"%d-%d" % (self.number, 0))
        result = await server.write(
            Txn((compare,), (Put(told.key, told.value),), (Range(told.key),))
        )
        assert isinstance(result, TxnResult)
        told.revision, told.succeeded = result.revision, result.succeeded
        (answer,) = result.results
        if isinstance(answer, RangeResult):
            told.seen = answer.kvs[0] if answer.kvs else None


def _check(log: Log, history: list[Told]) -> None:
    rows = list(log.all_rows())
    by_value = {row.value: row for row in rows if row.value is not None}
    assert len(by_value) == sum(row.value is not None for row in rows), "a write was doubled"
    for told in history:
        if told.revision is None:
            continue
        wrote = told.kind in {"put", "swap", "delete"} and told.succeeded
        if wrote and told.kind != "delete":
            assert to_revision(by_value[told.value].meta.id) == told.revision
        if wrote and told.kind == "delete":
            assert _at(rows, told.key, told.revision) is None
            assert _at(rows, told.key, told.revision - 1) is not None
        if told.kind == "get" or (told.kind == "swap" and not told.succeeded):
            state = _at(rows, told.key, told.revision)
            assert (state is None) == (told.seen is None)
            if state is not None and state.value is not None:
                assert told.seen is not None
                assert state.value in told.seen
    _check_real_time(history)


def _at(rows: list[Row], key: bytes, revision: int) -> Row | None:
    mine = [r for r in rows if r.meta.key == key and to_revision(r.meta.id) <= revision]
    return None if not mine or mine[-1].value is None else mine[-1]


def _check_real_time(history: list[Told]) -> None:
    answered = [(told, told.revision) for told in history if told.revision is not None]
    for later, later_revision in answered:
        for earlier, earlier_revision in answered:
            if earlier.ended < later.began:
                assert earlier_revision <= later_revision, (earlier, later)


def _make_history(seed: int, servers: int, clients: int, rate: float, longest: float) -> None:
    # One seed, not hypothesis' own draws: those may end a run inside any of the tasks.
    rng = random.Random(seed)

    async def scenario() -> None:
        log = Log(clock=lambda: asyncio.get_running_loop().time(), cluster_id=7)
        faults = RandomFaults(rng, log)
        running = [Server(log, rng, faults, longest=longest) for _ in range(servers)]
        history: list[Told] = []
        for server in running:
            await server.start()
        faults.rate = rate
        together = [Client(rng, running, n, history).run(8) for n in range(clients)]
        await asyncio.gather(*together)
        faults.rate = 0.0
        await settled(log, *running)
        _check(log, history)
        for server in running:
            assert server.recorder.told == list(committed(log))
            await server.stop()

    with quiet():
        simulate(scenario)


drawn = given(
    seed=st.integers(0, 2**32),
    servers=st.integers(1, 3),
    clients=st.integers(1, 4),
    rate=st.sampled_from([0.0, 0.05, 0.3]),
    longest=st.sampled_from([0.001, 0.02, 0.2]),
)


@drawn
def test_random_servers_and_faults_make_one_history(
    seed: int, servers: int, clients: int, rate: float, longest: float
) -> None:
    _make_history(seed, servers, clients, rate, longest)


@pytest.mark.soak
@drawn
def test_thousands_of_random_servers_and_faults_make_one_history(
    seed: int, servers: int, clients: int, rate: float, longest: float
) -> None:
    _make_history(seed, servers, clients, rate, longest)
