"""One life of `byre controller`: check, prepare, start, watch, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar

from datastore.errors import NotReady
from datastore.paths import Paths
from datastore.probe import identify, probe
from datastore.schema import Config
from datastore.sql import forget_positions
from supervisor.binaries import Binaries, BinaryError
from supervisor.certificates import ensure_cluster_pki
from supervisor.child import SystemSpawner
from supervisor.errors import PreflightFailed, StartFailed
from supervisor.identity import IdentityGuard
from supervisor.orphans import Orphan, end_orphans, find_orphans
from supervisor.place import log_dir, owner, socket_path
from supervisor.plan import Plan, component_names, listeners, make_plan
from supervisor.preflight import DataDirLock, check_directories, check_ports
from supervisor.release import byre_version
from supervisor.runtime import Runtime
from supervisor.status import Status, describe, serve_status

T = TypeVar("T")

logger = logging.getLogger(__name__)

ORPHAN_GRACE_SECONDS = 10.0
REMEMBER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for."""

    config: Config
    paths: Paths
    single: bool
    adopt_datastore: bool = False


def needed_binaries(plan: Plan, *, single: bool) -> list[str]:
    """Return the names of the executables that a plan needs."""
    return [*plan.datastore.binaries, *component_names(plan.datastore, single=single)]


def run_controller(
    order: Order,
    binaries: Binaries,
    progress: contextlib.AbstractContextManager[object],
    on_ready: Callable[[str], None],
) -> None:
    """Run a control plane until SIGTERM, SIGINT or SIGHUP; a second one kills what is left.

    Args:
        order: What to run.
        binaries: Where executables come from.
        progress: Entered while they are obtained.
        on_ready: Told the URL of the API server when everything is ready.

    Raises:
        PreflightFailed: Nothing has been started.
        StartFailed, ForeignStore: Everything that was started has been stopped again.
    """
    # Until the loop takes signals over, a build or download is to be ended with us.
    signal.signal(signal.SIGTERM, _leave)
    with DataDirLock(order.paths.data_dir) as lock:
        plan = asyncio.run(_preflight(order, binaries, lock))
        with progress:
            paths = binaries.obtain_all(needed_binaries(plan, single=order.single))
        plan = make_plan(
            order.config, order.paths, single=order.single, binary=lambda name: paths[name]
        )
        plan.datastore.prepare()
        ensure_cluster_pki(order.config, order.paths)
        asyncio.run(_run(order, plan, on_ready))


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


async def _preflight(order: Order, binaries: Binaries, lock: DataDirLock) -> Plan:
    plan = make_plan(order.config, order.paths, single=order.single)
    problems = check_directories(order.paths)
    if not problems:
        if holder := lock.take():
            where = order.paths.data_dir
            advice = "stop it, or use another --data-dir"
            raise PreflightFailed([f"another byre runs on {where} ({holder}); {advice}"])
        await clean_up(order.paths, [spec.name for spec in plan.processes])
        if order.adopt_datastore:
            forget_positions(order.paths.database_dir)
    problems += check_ports(listeners(plan))
    for name in needed_binaries(plan, single=order.single):
        try:
            binaries.find(name)
        except BinaryError as error:
            problems.append(str(error))
    if problems:
        raise PreflightFailed(problems)
    return plan


async def clean_up(paths: Paths, order: list[str]) -> None:
    """End what an earlier byre left behind; the caller holds the data directory."""

    def tell(orphan: Orphan) -> None:
        logger.warning(
            "ending %s, pid %d, left behind by an earlier byre", orphan.component, orphan.pid
        )

    orphans = find_orphans(owner(paths), paths.run_dir)
    await end_orphans(orphans, order, ORPHAN_GRACE_SECONDS, tell)


async def _run(order: Order, plan: Plan, on_ready: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    runtime = Runtime(
        plan,
        spawner=SystemSpawner(owner(order.paths), order.paths.run_dir, os.environ),
        clock=loop,
        probe=probe,
        log_dir=log_dir(order.paths),
        fraction=random.random,  # noqa: S311 (jitter is no secret)
    )
    about = {
        "version": byre_version(),
        "pid": os.getpid(),
        "single": order.single,
        "data_dir": str(order.paths.data_dir),
    }

    def tell() -> Status:
        return describe(runtime, about, loop.time())

    async with _signals() as stop, serve_status(socket_path(order.paths.run_dir), tell):
        try:
            await _live(order, runtime, stop, on_ready)
        finally:
            await _end(runtime, stop)


async def _live(
    order: Order,
    runtime: Runtime,
    stop: asyncio.Queue[signal.Signals],
    on_ready: Callable[[str], None],
) -> None:
    plan = runtime.plan
    guard = IdentityGuard(order.paths.data_dir, plan.datastore.kind, plan.datastore.place)

    async def on_store() -> None:
        await _identify(plan, guard, adopt=order.adopt_datastore)

    async with _background(stop.get()) as asked, _background(runtime.start(on_store)) as starting:
        await asyncio.wait({asked, starting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            logger.info("stopping after %s, before everything was ready", (await asked).name)
            return
        await starting
        on_ready(plan.api_url)
        async with _background(_remember(runtime, guard)) as remembering:
            await asyncio.wait({asked, remembering}, return_when=asyncio.FIRST_COMPLETED)
            if remembering.done():
                await remembering  # raises: nothing may go on with another store
            logger.info("stopping after %s", (await asked).name)
        await _note(plan, guard)


async def _end(runtime: Runtime, stop: asyncio.Queue[signal.Signals]) -> None:
    async def hurry() -> None:
        while True:
            await stop.get()
            logger.warning("killing what has not ended yet")
            runtime.hurry()

    async with _background(hurry()):
        await runtime.stop()


@contextlib.asynccontextmanager
async def _background(work: Coroutine[None, None, T]) -> AsyncIterator[asyncio.Task[T]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _identify(plan: Plan, guard: IdentityGuard, *, adopt: bool) -> None:
    try:
        identity = await identify(plan.datastore.endpoint)
    except NotReady as error:
        raise StartFailed("datastore", str(error)) from error
    if not adopt:
        guard.check(identity)
    guard.remember(identity)


async def _remember(runtime: Runtime, guard: IdentityGuard) -> None:
    """Keep the store in mind; raises ForeignStore when it is another one, or has lost data."""
    while True:
        await _note(runtime.plan, guard)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REMEMBER_SECONDS):
                await runtime.store_restarted.wait()
        runtime.store_restarted.clear()


async def _note(plan: Plan, guard: IdentityGuard) -> None:
    try:
        identity = await identify(plan.datastore.endpoint, 2.0)
        guard.check(identity)
    except NotReady as error:
        logger.debug("cannot ask the datastore who it is: %s", error)
    else:
        guard.remember(identity)


@contextlib.asynccontextmanager
async def _signals() -> AsyncIterator[asyncio.Queue[signal.Signals]]:
    queue: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, queue.put_nowait, number)
    try:
        yield queue
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
