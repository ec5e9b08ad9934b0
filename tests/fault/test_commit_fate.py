"""A commit whose reply is lost, at every point where that can happen (log.md, section I)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from datastore.shim.backends.api import Batch, Commit, Kinds, to_revision
from datastore.shim.backends.memory import Fault, Faults, Fence, Log, Script
from datastore.shim.errors import CorruptStore, LeaseNotFound, StoreError
from datastore.shim.mvcc.auth import SERVER
from datastore.shim.mvcc.ops import (
    Compact,
    Compare,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    Put,
    Range,
    RangeResult,
    Txn,
    TxnResult,
)
from tests.support.simulation import Server, committed, quiet, settled, simulate


def _log() -> Log:
    """Make a log whose clock is the simulation's; it may be made before the loop runs."""
    return Log(clock=lambda: asyncio.get_running_loop().time(), cluster_id=7)


def _run(scenario: Callable[[], Awaitable[None]]) -> None:
    with quiet():
        simulate(scenario)


def _values(log: Log, key: bytes) -> list[bytes | None]:
    return [row.value for row in log.all_rows() if row.meta.key == key]


async def _started(log: Log, count: int, faults: Faults | None = None) -> list[Server]:
    rng = random.Random(5)
    servers = [Server(log, rng, faults if n == 0 else None) for n in range(count)]
    for server in servers:
        await server.start()
    return servers


async def _stop(*servers: Server) -> None:
    for server in servers:
        await server.stop()


@pytest.mark.parametrize(
    ("fault", "fences"),
    [
        pytest.param(Fault.LOST_APPLIED, [], id="reply lost and applied"),
        pytest.param(Fault.LOST_NOT_APPLIED, [], id="reply lost, not applied"),
        pytest.param(Fault.ZOMBIE, [Fence.COMMITS], id="zombie commits during the fence"),
        pytest.param(Fault.ZOMBIE, [Fence.DIES], id="zombie dies at the fence"),
        pytest.param(Fault.ZOMBIE, [Fence.OVERTAKEN], id="fence overtakes the zombie"),
        pytest.param(
            Fault.ZOMBIE, [Fence.BLOCKS, Fence.BLOCKS, Fence.COMMITS], id="fence waits for it"
        ),
    ],
)
def test_a_lost_reply_is_settled_and_the_write_happens_once(
    fault: Fault, fences: list[Fence]
) -> None:
    async def scenario() -> None:
        log = _log()
        server, other = await _started(log, 2, Script([fault], fences))
        await server.write(Put(b"k", b"once"))
        log.release_zombies()
        await server.write(Put(b"k", b"after"))
        assert _values(log, b"k") == [b"once", b"after"]
        await settled(log, server, other)
        assert server.recorder.told == other.recorder.told == list(committed(log))
        await _stop(server, other)

    _run(scenario)


def test_a_zombie_that_commits_after_the_head_was_read_is_not_applied_twice() -> None:
    log = _log()

    class WakesAfterHead(Script):
        def read(self, operation: str) -> Fault | None:
            if operation == "head" and log.zombies:
                # The head has been asked for; the zombie commits before the fence arrives.
                asyncio.get_running_loop().call_soon(log.release_zombies)
            return None

    async def scenario() -> None:
        (server,) = await _started(log, 1, WakesAfterHead([Fault.ZOMBIE]))
        await server.write(Put(b"k", b"once"))
        assert _values(log, b"k") == [b"once"]
        await _stop(server)

    _run(scenario)


def test_a_zombie_that_commits_between_two_looks_of_the_settling_server_is_found() -> None:
    log = _log()

    # Found by the random simulation: its row was absent at the first look, the head had moved at
    # the second, and that was taken for a row that had been pruned.
    class WakesBetween(Script):
        def read(self, operation: str) -> Fault | None:
            if operation == "head" and log.zombies:
                log.release_zombies()
            return None

    async def scenario() -> None:
        (server,) = await _started(log, 1, WakesBetween([Fault.ZOMBIE]))
        await server.write(Put(b"k", b"once"))
        assert server.recorder.told == list(committed(log))
        assert server.recorder.resets == 0
        await _stop(server)

    _run(scenario)


def test_the_fences_own_reply_may_be_lost() -> None:
    async def scenario() -> None:
        log = _log()
        script = Script([Fault.LOST_NOT_APPLIED, Fault.LOST_APPLIED, None])
        (server,) = await _started(log, 1, script)
        await server.write(Put(b"k", b"once"))
        assert _values(log, b"k") == [b"once"]
        assert server.writer.stats.lost == 1, "the fence took the batch's place"
        await _stop(server)

    _run(scenario)


def test_two_servers_settle_at_once() -> None:
    async def scenario() -> None:
        log = _log()
        rng = random.Random(1)
        fates = [Fault.ZOMBIE, Fault.LOST_NOT_APPLIED, Fault.LOST_APPLIED]
        one, two = (Server(log, rng, Script(fates)) for _ in range(2))
        await one.start()
        await two.start()
        await asyncio.gather(
            *(s.write(Put(b"k%d" % n, b"%d" % n)) for n, s in enumerate([one, two] * 5))
        )
        log.release_zombies()
        await settled(log, one, two)
        for n in range(10):
            assert _values(log, b"k%d" % n) == [b"%d" % n]
        assert one.recorder.told == two.recorder.told == list(committed(log))
        await _stop(one, two)

    _run(scenario)


def test_a_batch_that_has_moved_twenty_times_still_goes_in_once() -> None:
    async def scenario() -> None:
        log = _log()
        (server,) = await _started(log, 1, Script([Fault.OVERTAKEN] * 20))
        await server.write(Put(b"k", b"v"))
        assert _values(log, b"k") == [b"v"]
        assert server.writer.stats.lost == 20
        assert log.head.change == 21
        await _stop(server)

    _run(scenario)


def test_a_tail_that_delivers_the_own_batch_before_its_reply_changes_nothing() -> None:
    async def scenario() -> None:
        log = _log()
        (server,) = await _started(log, 1)
        replica = server.replica

        async def tail_between() -> None:
            for _ in range(2000):
                await replica.read_index()

        reading = asyncio.create_task(tail_between())
        for n in range(50):
            await server.write(Put(b"k", b"%d" % n))
        reading.cancel()
        assert server.recorder.told == list(committed(log))
        latest = replica.store.at(b"k", log.head.revision)
        assert latest is not None
        assert latest.version == 50
        await _stop(server)

    _run(scenario)


def test_a_promoted_replica_that_lost_commits_is_diverged_for_everybody() -> None:
    async def scenario() -> None:
        log = _log()
        behind, ahead = await _started(log, 2)
        for n in range(10):
            await ahead.write(Put(b"k", b"%d" % n))
        await settled(log, behind, ahead)
        log.lose_tail(5)
        foreign = Batch(b"x" * 16, log.head.change, log.head.revision, Kinds.NONE)
        for n in range(8):  # the lost numbers are used again, and passed
            log.append(foreign._replace(batch=bytes([n]) * 16, expected=log.head.change))
        for server in (behind, ahead):
            with pytest.raises(CorruptStore):
                await server.reader.range(Range(b"k"), SERVER)
            assert "failed" in server.health.state
        await _stop(behind, ahead)

    _run(scenario)


def test_nothing_is_appended_to_another_history_that_has_reached_the_same_number() -> None:
    async def scenario() -> None:
        log = _log()
        (server,) = await _started(log, 1)
        for n in range(5):
            await server.write(Put(b"k", b"%d" % n))
        served = log.head.change
        log.lose_tail(served - 2)
        foreign = Batch(b"x" * 16, log.head.change, log.head.revision, Kinds.NONE)
        for n in range(2):  # before the server looks: a pooler hides that the database changed
            log.append(foreign._replace(batch=bytes([n]) * 16, expected=log.head.change))
        assert log.head.change == served
        with pytest.raises(CorruptStore):
            await server.write(Put(b"k", b"lost"))
        assert log.head.change == served
        await _stop(server)

    _run(scenario)


def test_a_server_below_which_rows_were_pruned_loads_again() -> None:
    async def scenario() -> None:
        log = _log()
        slow, quick = await _started(log, 2)
        await quick.write(Put(b"gone", b"1"))
        await settled(log, slow, quick)
        for task in slow._tasks:
            task.cancel()
        await quick.write(DeleteRange(b"gone"))
        for n in range(5):
            await quick.write(Put(b"k", b"%d" % n))
        await quick.write(Compact(log.head.revision))
        await quick.pruner.physical()
        assert log.head.pruned == log.head.compacted
        await slow.replica.catch_up()
        assert slow.recorder.resets == 1
        assert slow.replica.store.at(b"gone", log.head.revision) is None
        slow.crash()
        await _stop(quick)

    _run(scenario)


def test_a_prune_between_two_pages_of_a_load_revives_no_deleted_key() -> None:
    log = _log()

    class PrunesMeanwhile(Faults):
        def between_pages(self, operation: str) -> None:
            ids = [row.meta.id for row in log.all_rows()]
            log.prune(log.head.compacted, ids[:-1])

    async def scenario() -> None:
        (server,) = await _started(log, 1)
        await server.write(Put(b"dead", b"v"))
        writes = [server.write(Put(b"k%d" % n, b"v")) for n in range(1500)]
        await asyncio.gather(*writes)
        await server.write(DeleteRange(b"dead"))
        await server.write(Put(b"last", b"v"))
        await server.write(Compact(log.head.revision))
        late = Server(log, random.Random(3), PrunesMeanwhile())
        await late.start()
        assert late.replica.store.at(b"dead", log.head.revision) is None
        await _stop(server, late)

    _run(scenario)


def test_a_keepalive_in_flight_at_expiry_is_either_too_late_or_holds() -> None:
    async def scenario() -> None:
        log = _log()
        rng = random.Random(9)
        keeper, expirer = (Server(log, rng) for _ in range(2))
        await keeper.start()
        await expirer.start(upkeep=True)
        loop = asyncio.get_running_loop()
        kept = 0
        for lease in range(1, 40):
            await keeper.write(LeaseGrant(lease, 5))
            await keeper.write(Put(b"l%d" % lease, b"", lease=lease))
            await asyncio.sleep(rng.uniform(4.6, 5.1))
            acknowledged = loop.time()
            ttl = await keeper.expirer.keep_alive(lease)
            if ttl:
                kept += 1
                assert ttl == 5
                await asyncio.sleep(max(0.0, acknowledged + 4.5 - loop.time()))
                assert lease in log.leases, "an acknowledged keepalive was followed by expiry"
        assert 0 < kept < 39, "the race must have been met from both sides"
        await _stop(keeper, expirer)

    _run(scenario)


def test_what_appends_nothing_is_validated_against_the_head() -> None:
    async def scenario() -> None:
        log = _log()
        one, two = await _started(log, 2)
        two._tasks[1].cancel()  # it no longer follows by itself
        await one.write(LeaseGrant(5, 60))
        await two.write(Put(b"k", b"v", lease=5))
        await one.write(Put(b"absent", b"there by now"))
        create = Txn((Compare(CompareTarget.MOD, 0, b"absent", 0),), (), (Range(b"absent"),))
        result = await two.write(create)
        assert isinstance(result, TxnResult)
        assert not result.succeeded
        (there,) = result.results
        assert isinstance(there, RangeResult)
        assert there.count == 1
        with pytest.raises(LeaseNotFound):
            await two.write(Put(b"k", b"v", lease=6))
        two._tasks.pop(1)
        await _stop(one, two)

    _run(scenario)


def test_a_write_whose_database_is_away_fails_and_leaves_no_trace() -> None:
    async def scenario() -> None:
        log = _log()
        (server,) = await _started(log, 1, Script([Fault.UNAVAILABLE, Fault.FULL]))
        with pytest.raises(StoreError, match="no leader"):
            await server.write(Put(b"k", b"1"))
        with pytest.raises(StoreError, match="database space exceeded"):
            await server.write(Put(b"k", b"2"))
        await server.write(Put(b"k", b"3"))
        assert _values(log, b"k") == [b"3"]
        assert isinstance(log.commits[1], Commit)
        assert to_revision(next(iter(log.rows))) == 2
        await _stop(server)

    _run(scenario)
