"""Starts the processes of a plan in order, keeps them alive, and stops them in reverse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

from datastore.errors import NotReady
from datastore.launch import Probe, ProcessSpec
from supervisor.backoff import BackoffPolicy
from supervisor.child import Child
from supervisor.errors import StartFailed
from supervisor.lifecycle import Clock, Event, Spawner, State
from supervisor.output import ComponentLog
from supervisor.plan import Plan

logger = logging.getLogger(__name__)

Prober = Callable[[Probe], Awaitable[None]]
"""Asks a process whether it is ready; raises NotReady."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are asked, and how long they may go wrong."""

    ready_poll_seconds: float = 0.1
    liveness_seconds: float = 5.0
    liveness_failures: int = 6
    store_seconds: float = 60.0
    start_attempts: int = 3


class Supervised:
    """A child and what its probes said last."""

    def __init__(self, child: Child, *, is_store: bool) -> None:
        self.child = child
        self.is_store = is_store
        self.reason = ""
        """Why the last probe failed; empty when it was answered."""


class Runtime:
    """All processes of one plan.

    Args:
        plan: What to run.
        spawner: Starts processes.
        clock: Time and timers; the running loop.
        probe: Asks a process whether it is ready.
        log_dir: Where the output of the components goes.
        fraction: Random numbers in [0, 1) for the jitter.
        pace: How often things are asked.
        policy: How long to wait before a restart.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        spawner: Spawner,
        clock: Clock,
        probe: Prober,
        log_dir: Path,
        fraction: Callable[[], float],
        pace: Pace | None = None,
        policy: BackoffPolicy | None = None,
    ) -> None:
        self.plan = plan
        self.store_reason = "not asked yet"
        self.store_restarted = asyncio.Event()
        """Set when a process of the store serves again after it ended."""
        self._clock = clock
        self._probe = probe
        self._pace = pace or Pace()
        self._changed = asyncio.Event()
        self._log_dir = log_dir
        self._watchers: list[asyncio.Task[None]] = []

        def supervise(spec: ProcessSpec, *, is_store: bool) -> Supervised:
            child = Child(
                spec,
                ComponentLog(log_path(log_dir, spec.name)),
                spawner=spawner,
                clock=clock,
                fraction=fraction,
                policy=policy,
                on_change=self._on_change,
            )
            return Supervised(child, is_store=is_store)

        self.stores = [supervise(spec, is_store=True) for spec in plan.stores]
        self.components = [supervise(spec, is_store=False) for spec in plan.components]

    @property
    def processes(self) -> Sequence[Supervised]:
        """All processes in the order of their start."""
        return (*self.stores, *self.components)

    async def start(self, on_store: Callable[[], Awaitable[None]]) -> None:
        """Start everything, one after the other; return when all are ready.

        Args:
            on_store: Called when the store answers, before anything that uses it is started.

        Raises:
            StartFailed: A process did not become ready; the others still have to be stopped.
        """
        for supervised in self.stores:
            await self._start_one(supervised)
        await self._await_store()
        await on_store()
        for supervised in self.components:
            await self._start_one(supervised)
        self._keep(self._watch_store())

    async def stop(self) -> None:
        """Stop everything in reverse; return when nothing runs any more."""
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers.clear()
        for supervised in reversed(self.processes):
            await self._stop_one(supervised.child)

    async def _stop_one(self, child: Child) -> None:
        if child.state is not State.INITIAL:
            child.stop()
            await self._until(lambda: child.state is State.STOPPED)
        child.log.close()

    def hurry(self) -> None:
        """Kill what is still being asked to end; whoever waits in `stop` goes on."""
        for supervised in self.processes:
            if supervised.child.state is State.TERMINATING:
                supervised.child.grace_elapsed()

    async def check_store(self) -> bool:
        """Ask the store whether it answers, and remember what it said."""
        try:
            await self.plan.datastore.check()
        except NotReady as error:
            self.store_reason = str(error)
        else:
            self.store_reason = ""
        return not self.store_reason

    async def _start_one(self, supervised: Supervised) -> None:
        child = supervised.child
        began = self._clock.time()
        child.start()
        self._keep(self._watch(supervised))
        await self._until(lambda: self._is_start_over(child))
        if child.state is not State.READY:
            raise self._start_failed(supervised)
        logger.info("%s is ready after %.1f s", child.spec.name, self._clock.time() - began)

    def _is_start_over(self, child: Child) -> bool:
        if child.state is not State.BACKOFF:
            return child.state in {State.READY, State.FAILED}
        if child.restarts + 1 >= self._pace.start_attempts:
            return True
        # A run that had all the time it may take will not do better the next time.
        return bool(child.last_exit and child.last_exit.ran_seconds >= child.spec.ready_seconds)

    def _start_failed(self, supervised: Supervised) -> StartFailed:
        child = supervised.child
        end = child.last_exit
        reason = end.reason if end else "it did not answer"
        if supervised.reason and end and end.ran_seconds >= child.spec.ready_seconds:
            reason += f" ({supervised.reason})"
        lines = end.lines if end else ()
        return StartFailed(
            child.spec.name, reason, lines, log_path(self._log_dir, child.spec.name)
        )

    async def _await_store(self) -> None:
        try:
            async with asyncio.timeout(self._pace.store_seconds):
                while not await self.check_store():  # noqa: ASYNC110 (nobody tells us)
                    await asyncio.sleep(self._pace.ready_poll_seconds)
        except TimeoutError:
            raise StartFailed("datastore", self.store_reason) from None

    async def _watch_store(self) -> None:
        while True:
            was = self.store_reason
            await self.check_store()
            if self.store_reason and not was:
                logger.warning("the datastore does not answer: %s", self.store_reason)
            elif was and not self.store_reason:
                logger.info("the datastore answers again")
            await asyncio.sleep(self._pace.liveness_seconds)

    async def _watch(self, supervised: Supervised) -> None:
        child = supervised.child
        while True:
            await self._until(lambda: child.state in {State.STARTING, State.READY})
            if child.state is State.STARTING:
                await self._watch_start(supervised)
            else:
                await self._watch_life(supervised)

    async def _watch_start(self, supervised: Supervised) -> None:
        child, pid = supervised.child, supervised.child.pid
        while child.state is State.STARTING and child.pid == pid:
            is_ready = await self._ask(supervised, child.spec.readiness)
            if child.pid != pid:
                return
            if is_ready:
                child.ready()
            else:
                await asyncio.sleep(self._pace.ready_poll_seconds)

    async def _watch_life(self, supervised: Supervised) -> None:
        child, pid = supervised.child, supervised.child.pid
        failures = 0
        while child.state is State.READY and child.pid == pid:
            await asyncio.sleep(self._pace.liveness_seconds)
            if await self._ask(supervised, child.spec.liveness):
                failures = 0
            elif supervised.is_store or await self.check_store():
                failures += 1
            else:
                failures = 0  # the store is away: that is not this process's fault
            if failures >= self._pace.liveness_failures and child.pid == pid:
                child.unhealthy(supervised.reason)

    async def _ask(self, supervised: Supervised, probe: Probe | None) -> bool:
        reason = ""
        if probe:
            try:
                await self._probe(probe)
            except NotReady as error:
                reason = str(error)
        # Not before the answer: a deadline that strikes meanwhile tells the reason before.
        supervised.reason = reason
        return not reason

    async def _until(self, is_met: Callable[[], bool]) -> None:
        while not is_met():
            await self._changed.wait()

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(_report)
        self._watchers.append(task)

    def _on_change(self, child: Child, event: Event) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        if event is Event.READY and child.restarts:
            if any(supervised.child is child for supervised in self.stores):
                self.store_restarted.set()
        elif child.state is State.BACKOFF and child.last_exit:
            kind = "keeps ending" if child.is_crash_loop else "ended"
            logger.warning("%s %s: %s", child.spec.name, kind, child.last_exit.reason)
        elif event is Event.BACKOFF_ELAPSED and child.state is State.STARTING:
            logger.info("%s is started again, pid %s", child.spec.name, child.pid)
        elif event is Event.START and child.state is State.STARTING:
            logger.info("%s is starting, pid %s", child.spec.name, child.pid)
        elif child.state is State.KILLING:
            logger.warning(
                "%s did not end within %g s and is killed",
                child.spec.name,
                child.spec.grace_seconds,
            )
        elif child.state is State.STOPPED and event is Event.EXITED:
            logger.info("%s has stopped", child.spec.name)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.error("a watcher has ended", exc_info=error)


def log_path(log_dir: Path, component: str) -> Path:
    """Return the log file of a component."""
    return log_dir / f"{component}.log"
