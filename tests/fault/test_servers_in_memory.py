"""Several servers on one log, in virtual time: what each must do for the others."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest

from datastore.shim.backends.api import Alarm, Batch, Kinds, to_revision
from datastore.shim.backends.memory import Fault, Faults, Log
from datastore.shim.errors import CorruptStore, NoLeader
from datastore.shim.health import State
from datastore.shim.members import HEARTBEAT_SECONDS
from datastore.shim.mvcc.auth import SERVER
from datastore.shim.mvcc.ops import (
    Compact,
    DeleteRange,
    LeaseGrant,
    LeaseRevoke,
    Put,
    Range,
    SetAlarm,
)
from datastore.shim.position import ACCEPTED_GAP
from tests.support.simulation import Server, committed, quiet, settled, simulate


class Counting(Faults):
    """Counts operations, and refuses all of them while the database is away."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.away = False

    def append(self, batch: Batch) -> Fault | None:
        self.counts["append"] += 1
        return Fault.UNAVAILABLE if self.away else None

    def read(self, operation: str) -> Fault | None:
        self.counts[operation] += 1
        return Fault.UNAVAILABLE if self.away else None


def _run(scenario: Callable[[], Awaitable[None]]) -> None:
    with quiet():
        simulate(scenario)


def _log() -> Log:
    return Log(clock=lambda: asyncio.get_running_loop().time(), cluster_id=7)


async def _started(
    log: Log, count: int, faults: Faults | None = None, *, upkeep: bool = False
) -> list[Server]:
    """Start servers; the first one has the faults."""
    rng = random.Random(5)
    servers = [Server(log, rng, faults if n == 0 else None) for n in range(count)]
    for server in servers:
        await server.start(upkeep=upkeep)
    return servers


async def _stop(*servers: Server) -> None:
    for server in servers:
        await server.stop()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - virtual time costs nothing
        await asyncio.sleep(0.01)


def _ids(server: Server) -> set[int]:
    return {member.id for member in server.members.live}


def test_servers_know_of_each_other_while_they_live() -> None:
    async def scenario() -> None:
        log = _log()
        one, two, three = servers = await _started(log, 3, upkeep=True)
        everybody = {server.members.me.id for server in servers}
        await _until(lambda: all(_ids(server) == everybody for server in servers))
        assert not one.members.alone
        assert len({server.members.first for server in servers}) == 1
        three.crash()
        await _until(lambda: three.members.me.id not in _ids(one) | _ids(two))
        await _stop(one, two)

    _run(scenario)


def test_pruning_stays_behind_what_a_live_server_reads_and_passes_a_dead_one() -> None:
    async def scenario() -> None:
        log = _log()
        one, two = await _started(log, 2, upkeep=True)
        for n in range(10):
            await one.write(Put(b"k", b"%d" % n))
        await settled(log, one, two)
        two.reads = 5
        await asyncio.sleep(2 * HEARTBEAT_SECONDS)
        await one.write(Compact(9))
        await asyncio.sleep(60)
        assert log.head.pruned <= 5
        assert any(to_revision(row.meta.id) == 6 for row in log.all_rows())
        two.crash()
        await _until(lambda: log.head.pruned == 9)
        await _until(lambda: to_revision(log.all_rows()[0].meta.id) == 9)
        await one.stop()

    _run(scenario)


def test_reads_that_come_together_share_one_look_at_the_log() -> None:
    async def scenario() -> None:
        counting = Counting()
        (server,) = await _started(_log(), 1, counting)
        await server.write(Put(b"k", b"v"))
        before = counting.counts["tail"]
        await asyncio.gather(*(server.reader.range(Range(b"k"), SERVER) for _ in range(500)))
        # One that may have been under way, one for all of them, one of the poll.
        assert counting.counts["tail"] - before <= 3
        assert not counting.counts["head"]
        await server.stop()

    _run(scenario)


def test_keepalives_of_many_leases_are_few_statements() -> None:
    async def scenario() -> None:
        counting = Counting()
        (server,) = await _started(_log(), 1, counting)
        await asyncio.gather(*(server.write(LeaseGrant(n, 60)) for n in range(1, 201)))
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(10):
            ttls = await asyncio.gather(*(server.expirer.keep_alive(n) for n in range(1, 202)))
            assert ttls == [60] * 200 + [0]
        seconds = loop.time() - began
        assert counting.counts["keep_alive"] <= 10 * seconds + 1
        await server.stop()

    _run(scenario)


def test_while_the_database_is_away_requests_fail_at_once_and_all_heals_by_itself() -> None:
    async def scenario() -> None:
        log, counting = _log(), Counting()
        server, other = await _started(log, 2, counting)
        await server.write(Put(b"k", b"1"))
        counting.away = True
        with pytest.raises(NoLeader):
            await server.reader.range(Range(b"k"), SERVER)
        assert server.health.state is State.AWAY
        loop = asyncio.get_running_loop()
        began, looks = loop.time(), counting.counts["tail"]
        for _ in range(1000):
            with pytest.raises(NoLeader):
                await server.reader.range(Range(b"k"), SERVER)
            with pytest.raises(NoLeader):
                await server.expirer.keep_alive(1)
        assert loop.time() - began < 0.1, "nobody waits for a database that is known to be away"
        for n in range(20):
            await other.write(Put(b"k", b"%d" % n))
        await asyncio.sleep(30)
        assert counting.counts["tail"] - looks < 80, "it is asked with growing pauses"
        counting.away = False
        await _until(lambda: server.health.serving)
        await settled(log, server, other)
        assert server.recorder.told == other.recorder.told == list(committed(log))
        assert not server.recorder.resets
        await server.write(Put(b"k", b"again"))
        await _stop(server, other)

    _run(scenario)


def test_held_writes_fail_and_none_of_them_is_done_later() -> None:
    async def scenario() -> None:
        log = _log()
        (server,) = await _started(log, 1)
        waiting = asyncio.gather(
            *(server.write(Put(b"k", b"%d" % n)) for n in range(3)), return_exceptions=True
        )
        await asyncio.sleep(0)
        server.writer.hold("the database is away")
        assert [type(answer) for answer in await waiting] == [NoLeader] * 3
        with pytest.raises(NoLeader):
            await server.write(Put(b"k", b"refused"))
        server.writer.resume()
        await server.write(Put(b"k", b"done"))
        assert [row.value for row in log.all_rows()] == [b"done"]
        await server.stop()

    _run(scenario)


def _use_again(log: Log, lost: int, upto: int) -> None:
    """Lose the tail after `lost`, and let a foreign server write up to `upto`."""
    log.lose_tail(lost)
    for change in range(lost, upto):
        batch = Batch(bytes([change]) * 16, change, log.head.revision, Kinds.NONE)
        log.append(batch)


def test_a_lost_tail_whose_numbers_were_used_again_exactly_is_noticed() -> None:
    async def scenario() -> None:
        log, counting = _log(), Counting()
        (server,) = await _started(log, 1, counting)
        for n in range(10):
            await server.write(Put(b"k", b"%d" % n))
        change = log.head.change
        counting.away = True
        await _until(lambda: server.health.state is State.AWAY)
        _use_again(log, 5, change)
        assert log.head.change == server.replica.position.change
        counting.away = False
        appends = counting.counts["append"]
        with pytest.raises((CorruptStore, NoLeader)):
            await server.write(Put(b"k", b"on the wrong base"))
        await _until(lambda: server.health.state is State.FAILED)
        with pytest.raises(CorruptStore):
            await server.write(Put(b"k", b"on the wrong base"))
        assert counting.counts["append"] == appends
        await server.stop()

    _run(scenario)


def test_a_turn_reads_all_that_was_committed_however_much_that_is() -> None:
    async def scenario() -> None:
        log = _log()
        behind, ahead = await _started(log, 2)
        await ahead.write(Put(b"k", b"first"))
        await settled(log, behind, ahead)
        behind._tasks[1].cancel()  # it no longer follows by itself
        for n in range(2500):
            head = log.head
            log.append(Batch(b"%16d" % n, head.change, head.revision, Kinds.NONE))
        assert behind.replica.contended
        await behind.write(Put(b"k", b"second"))
        assert behind.writer.stats.lost == 0
        assert log.head.change == behind.replica.position.change
        behind._tasks.pop(1)
        await _stop(behind, ahead)

    _run(scenario)


def test_a_turn_that_is_not_given_stops_nobody_from_writing() -> None:
    async def scenario() -> None:
        log = _log()

        class NoTurns(Faults):
            def read(self, operation: str) -> Fault | None:
                return Fault.UNAVAILABLE if operation == "turn" else None

        server, other = await _started(log, 2, NoTurns())
        await other.write(Put(b"k", b"1"))
        await settled(log, server, other)
        assert server.replica.contended
        await server.write(Put(b"k", b"2"))
        assert server.health.serving
        assert [row.value for row in log.all_rows()] == [b"1", b"2"]
        await _stop(server, other)

    _run(scenario)


def test_a_server_that_slept_until_the_commits_after_its_own_were_forgotten_loads_again() -> None:
    async def scenario() -> None:
        log = Log(clock=lambda: asyncio.get_running_loop().time(), cluster_id=7, commits_kept=10)
        slow, quick = await _started(log, 2)
        await quick.write(Put(b"k", b"first"))
        await settled(log, slow, quick)
        slow._tasks[1].cancel()  # it no longer follows by itself
        for n in range(50):
            await quick.write(Put(b"k", b"%d" % n))
        log.prune(log.head.pruned, ())
        assert slow.replica.position.change + 1 not in log.commits
        await slow.replica.catch_up()
        assert slow.recorder.resets == 1
        assert slow.replica.position == quick.replica.position
        slow._tasks.pop(1)
        await _stop(slow, quick)

    _run(scenario)


def test_a_stale_read_whose_value_was_pruned_is_answered_from_a_later_state() -> None:
    async def scenario() -> None:
        log = _log()
        slow, quick = await _started(log, 2)
        await quick.write(Put(b"k", b"old"))
        for n in range(3):  # more than the cache holds
            await quick.write(Put(b"other%d" % n, b"v" * (1 << 19)))
        await settled(log, slow, quick)
        slow._tasks[1].cancel()  # it no longer follows by itself
        await quick.write(Put(b"k", b"new"))
        await quick.write(Compact(log.head.revision))
        await quick.pruner.physical()
        result = await slow.reader.range(Range(b"k", serializable=True), SERVER)
        assert b"new" in result.kvs[0]
        slow._tasks.pop(1)
        await _stop(slow, quick)

    _run(scenario)


def test_leases_and_alarms_of_others_arrive_with_their_commits() -> None:
    async def scenario() -> None:
        log = _log()
        one, two = await _started(log, 2)
        await one.write(LeaseGrant(5, 60))
        await one.write(LeaseGrant(6, 30))
        await one.write(Put(b"k", b"v", lease=5))
        await settled(log, one, two)
        assert two.replica.store.leases.find(5).keys == {b"k"}
        # Revoked and granted again before the other server looks: the TTL is the new one's.
        two._tasks[1].cancel()
        await one.write(LeaseRevoke(5))
        await one.write(LeaseGrant(5, 90))
        await one.write(LeaseRevoke(6))
        await one.write(SetAlarm(Alarm(1, 1), active=False))
        await two.replica.catch_up()
        assert two.replica.store.leases.find(5).ttl == 90
        assert not two.replica.store.leases.find(5).keys
        assert two.replica.store.leases.find(6) is None
        assert await two.expirer.keep_alive(5) == 90
        two._tasks.pop(1)
        await _stop(one, two)

    _run(scenario)


def test_a_lease_that_all_servers_expire_at_once_ends_once() -> None:
    """T39: each key is deleted by one revision, whichever server was first."""

    async def scenario() -> None:
        log = _log()
        servers = await _started(log, 3, upkeep=True)
        for number in range(1, 31):
            server = servers[number % 3]
            await server.write(LeaseGrant(number, 2))
            await server.write(Put(b"a%d" % number, b"v", lease=number))
            await server.write(Put(b"b%d" % number, b"v", lease=number))
        await _until(lambda: not any(s.replica.store.leases.ids() for s in servers))
        await settled(log, *servers)
        ends = [row.meta for row in log.all_rows() if row.meta.tombstone]
        assert Counter(meta.key for meta in ends).most_common(1)[0][1] == 1
        assert len(ends) == 60
        assert len({to_revision(meta.id) for meta in ends}) == 30
        assert all(server.recorder.told == list(committed(log)) for server in servers)
        await _stop(*servers)

    _run(scenario)


def test_a_foreign_compaction_takes_effect_after_the_commits_before_it() -> None:
    async def scenario() -> None:
        log = _log()
        one, two = await _started(log, 2)
        order: list[tuple[str, int]] = []
        publish, compacted = two.recorder.publish, two.recorder.compacted

        def note_publish(revision: int, changes: Sequence[object]) -> None:
            order.append(("publish", revision))
            publish(revision, changes)  # type: ignore[arg-type]

        def note_compacted(revision: int) -> None:
            order.append(("compacted", revision))
            compacted(revision)

        two.recorder.publish, two.recorder.compacted = note_publish, note_compacted  # type: ignore[method-assign]
        two._tasks[1].cancel()
        await asyncio.gather(*(one.write(Put(b"k", b"%d" % n)) for n in range(5)))
        await one.write(Compact(5))
        await one.write(DeleteRange(b"k"))
        await two.replica.catch_up()
        assert order == [*(("publish", n) for n in range(2, 7)), ("compacted", 5), ("publish", 7)]
        two._tasks.pop(1)
        await _stop(one, two)

    _run(scenario)


def test_an_accepted_loss_moves_the_revision_of_servers_that_had_lost_nothing() -> None:
    async def scenario() -> None:
        log = _log()
        (server,) = await _started(log, 1)
        await server.write(Put(b"k", b"v"))
        head = log.head
        jumped = head.revision + ACCEPTED_GAP
        log.append(Batch(b"j" * 16, head.change, jumped, Kinds.COMPACT, compacted=jumped))
        await settled(log, server)
        assert server.replica.store.revision == server.recorder.revision == jumped
        assert server.replica.store.compacted == jumped
        result = await server.reader.range(Range(b"k"), SERVER)
        assert result.count == 1
        await server.write(Put(b"k", b"w"))
        assert to_revision(log.all_rows()[-1].meta.id) == jumped + 1
        await server.stop()

    _run(scenario)
