"""Three servers on one database: clients of all of them see one history, whatever breaks."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import grpc.aio
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import prefix_end
from tests.support.cluster import Cluster, Node, running_cluster
from tests.support.databases import SERVERS
from tests.support.linearizability import Workload
from tests.support.observers import Observer, Wanted, check_acknowledged, observe_as, to_log
from tests.support.permits import WANTED as USERS_WANTED
from tests.support.permits import GuardedWorkload
from tests.support.proxy import Mode
from tests.support.servers import Binaries

ALL = b"linear/"
WANTED: list[Wanted] = [
    (ALL, prefix_end(ALL), {}),
    (ALL, prefix_end(ALL), {"prev_kv": True, "fragment": True}),
    (ALL, b"\0", {"progress_notify": True}),
    (b"linear/0/0", b"", {"prev_kv": True}),
    (ALL, prefix_end(ALL), {"filters": [pb.WatchCreateRequest.NOPUT], "prev_kv": True}),
    (b"linear/0/1", b"linear/2", {"filters": [pb.WatchCreateRequest.NODELETE]}),
]
KEPT_REVISIONS = 200
"""Compaction stays so far behind what the first observer has seen: its record is the log."""

Disturbance = Callable[[Cluster, Node, Workload], Awaitable[None]]


@pytest.fixture(params=SERVERS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(request.param, tmp_path) as cluster:
        yield cluster


async def kill(cluster: Cluster, node: Node, workload: Workload) -> None:
    """End a server as a crash does, and start it again."""
    await asyncio.to_thread(node.server.kill)
    await workload.history.until_completed(30)
    await asyncio.to_thread(node.server.start)


async def pause(cluster: Cluster, node: Node, workload: Workload) -> None:
    """Stop a server in the middle of whatever it does; the others must not wait for it."""
    node.server.signal(signal.SIGSTOP)
    await workload.history.until_completed(100)
    node.server.signal(signal.SIGCONT)


async def pause_past_every_timeout(cluster: Cluster, node: Node, workload: Workload) -> None:
    """Stop a server until the others count it as gone: then nothing waits for it any more."""
    node.server.signal(signal.SIGSTOP)
    request = pb.MemberListRequest(linearizable=True)
    names = {node.server.name}
    while node.server.name in names:
        await workload.history.until_completed(10)
        # An earlier disturbance may still be felt, and auth may have changed.
        with suppress(grpc.aio.AioRpcError):
            async with workload.connect(cluster.beside(node), 0) as client:
                answer = await client.call("Cluster/MemberList", request, pb.MemberListResponse)
                names = {member.name for member in answer.members}
    node.server.signal(signal.SIGCONT)


def network(mode: Mode) -> Disturbance:
    """Return what lets a server's connections to the database misbehave, then ends them."""

    async def disturb(cluster: Cluster, node: Node, workload: Workload) -> None:
        node.proxy.turn(mode)
        await workload.history.until_completed(60)
        node.proxy.cut()
        node.proxy.turn(Mode.PASS)
        await workload.history.until_completed(30)

    return disturb


async def crash_database(cluster: Cluster, node: Node, workload: Workload) -> None:
    """End the database as a power cut does."""
    await asyncio.to_thread(cluster.crash_database)
    await workload.history.until_completed(30)


QUICK: list[Disturbance] = [
    kill,
    pause,
    network(Mode.SWALLOW),
    network(Mode.ZOMBIE),
    network(Mode.DELAY),
    crash_database,
]
ALL_OF_THEM: list[Disturbance] = [
    *QUICK,
    network(Mode.HALF_OPEN),
    network(Mode.REFUSE),
    network(Mode.PASS),
    pause_past_every_timeout,
]


async def observe(
    cluster: Cluster,
    workload: Workload,
    observers: Sequence[Observer],
    disturbances: list[Disturbance],
) -> None:
    """Write, compact and disturb while observers watch; then judge what they were told.

    The first of them watches everything, without filters.
    """
    dice = random.Random(workload.seed)
    targets, everything = cluster.targets, observers[0]
    compacted, stop = 0, asyncio.Event()

    async def compact() -> None:
        nonlocal compacted
        while True:
            await workload.history.until_completed(100)
            compacted = max(compacted, everything.segments[-1].reached - KEPT_REVISIONS)
            with suppress(grpc.aio.AioRpcError):
                async with workload.connect(dice.choice(targets), 0) as client:
                    await client.compact(compacted)

    async with asyncio.TaskGroup() as group:
        work = group.create_task(workload.run(stop))
        for observer in observers:
            group.create_task(observer.run())
        await workload.history.until_completed(100)
        compaction = group.create_task(compact())
        for disturb in disturbances:
            await disturb(cluster, dice.choice(cluster.nodes), workload)
        await workload.history.until_completed(300)
        compaction.cancel()
        stop.set()
        await work
        final = 0
        for target in targets:
            async with workload.connect(target, 0) as client:
                final = max(final, await client.revision())
        for observer in observers:
            observer.finish(final)

    log = to_log(everything)
    check_acknowledged(workload.history.entries, log)
    for observer in observers:
        observer.check(log, compacted)


def everybody(workload: GuardedWorkload) -> list[Observer]:
    """Return observers that are root, and such as are the user."""
    return [*observe_as(workload, 0, WANTED[:2]), *observe_as(workload, 1, USERS_WANTED)]


async def test_one_history_whatever_breaks(
    cluster: Cluster, binaries: Binaries, tmp_path: Path
) -> None:
    workload = Workload(cluster.targets, clients=9)
    await observe(cluster, workload, observe_as(workload, 0, WANTED), QUICK)
    await asyncio.to_thread(workload.history.check, binaries.porcupine_check, tmp_path)


async def test_one_history_while_auth_changes(
    cluster: Cluster, binaries: Binaries, tmp_path: Path
) -> None:
    workload = GuardedWorkload(cluster.targets, clients=9)
    await workload.enable()
    await observe(cluster, workload, everybody(workload), [kill, pause, network(Mode.SWALLOW)])
    await asyncio.to_thread(workload.check, binaries.porcupine_check, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(6))
async def test_one_history_in_a_long_run_of_faults(
    seed: int, cluster: Cluster, binaries: Binaries, tmp_path: Path
) -> None:
    dice = random.Random(seed)
    disturbances = [dice.choice(ALL_OF_THEM) for _ in range(25)]
    workload = Workload(cluster.targets, clients=9, seed=seed)
    await observe(cluster, workload, observe_as(workload, 0, WANTED), disturbances)
    await asyncio.to_thread(workload.history.check, binaries.porcupine_check, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(6))
async def test_one_history_in_a_long_run_of_faults_while_auth_changes(
    seed: int, cluster: Cluster, binaries: Binaries, tmp_path: Path
) -> None:
    dice = random.Random(seed)
    workload = GuardedWorkload(cluster.targets, clients=9, seed=seed)
    await workload.enable()
    await observe(cluster, workload, everybody(workload), dice.choices(ALL_OF_THEM, k=15))
    await asyncio.to_thread(workload.check, binaries.porcupine_check, tmp_path)
