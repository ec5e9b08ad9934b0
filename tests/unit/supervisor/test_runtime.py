"""Order, readiness, liveness and stop, with fake processes on a real loop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from datastore.endpoint import Endpoint
from datastore.errors import NotReady
from datastore.launch import HttpProbe, Probe, ProcessSpec
from supervisor.backoff import BackoffPolicy
from supervisor.errors import StartFailed
from supervisor.lifecycle import State
from supervisor.plan import Plan
from supervisor.runtime import Pace, Runtime
from supervisor.status import describe

PACE = Pace(
    ready_poll_seconds=0.001,
    liveness_seconds=0.001,
    liveness_failures=3,
    store_seconds=0.2,
    start_attempts=3,
)
NAMES = ("etcd", "kube-apiserver", "kube-scheduler")


@dataclass
class FakeProcess:
    world: World
    name: str
    pid: int
    on_exit: Callable[[int], None]

    def signal_group(self, number: signal.Signals) -> None:
        self.world.log.append(f"{number.name} {self.name}")
        if self.name not in self.world.stubborn or number is signal.SIGKILL:
            asyncio.get_running_loop().call_soon(self.end, -number)

    def end(self, status: int) -> None:
        if self.world.running.pop(self.name, None):
            self.on_exit(status)


@dataclass
class World:
    """What is outside of a runtime; also a datastore and a prober."""

    log: list[str] = field(default_factory=list)
    running: dict[str, FakeProcess] = field(default_factory=dict)
    stubborn: set[str] = field(default_factory=set)
    sick: set[str] = field(default_factory=set)
    crashing: set[str] = field(default_factory=set)
    store_answers: bool = True
    starts: int = 0
    probes: int = 0
    silent_after: int = sys.maxsize
    kind: str = "fake"
    place: str = "nowhere"
    shared: bool = False
    binaries: tuple[str, ...] = ()
    endpoint: Endpoint = field(default_factory=lambda: Endpoint(("http://127.0.0.1:2379",)))

    def processes(self) -> tuple[ProcessSpec, ...]:
        return ()

    def prepare(self) -> None:
        return

    async def check(self) -> None:
        if not self.store_answers:
            raise NotReady("the database is away", "start it")

    def spawn(
        self,
        spec: ProcessSpec,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[int], None],
    ) -> FakeProcess:
        self.starts += 1
        self.log.append(f"start {spec.name}")
        process = FakeProcess(self, spec.name, 100 + self.starts, on_exit)
        self.running[spec.name] = process
        if spec.name in self.crashing:
            on_output(b"cannot open the file\n")
            asyncio.get_running_loop().call_soon(process.end, 3)
        return process

    async def probe(self, probe: Probe) -> None:
        await asyncio.sleep(0)
        self.probes += 1
        if self.probes > self.silent_after:
            await asyncio.Event().wait()
        name = probe.url.rpartition("/")[2]
        if name not in self.running or name in self.sick | self.crashing:
            raise NotReady(f"{name} does not answer")


def spec(name: str, **changes: float) -> ProcessSpec:
    probe = HttpProbe(f"http://fake/{name}")
    return ProcessSpec(name, [name], readiness=probe, liveness=probe, **changes)  # type: ignore[arg-type]


def make(world: World, log_dir: Path, changes: Mapping[str, float]) -> Runtime:
    store, *components = (spec(name, **changes) for name in NAMES)
    plan = Plan(world, (store,), tuple(components), "https://127.0.0.1:6443")
    return Runtime(
        plan,
        spawner=world.spawn,
        clock=asyncio.get_running_loop(),
        probe=world.probe,
        log_dir=log_dir,
        fraction=lambda: 0.5,
        pace=PACE,
        policy=BackoffPolicy(first_seconds=0.005),
    )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def runtime(world: World, tmp_path: Path) -> AsyncIterator[Runtime]:
    made = make(world, tmp_path, {"grace_seconds": 0.05})
    yield made
    async with asyncio.timeout(10):
        await made.stop()
    assert not world.running


async def nothing() -> None:
    return


async def until(is_met: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_met():  # noqa: ASYNC110 (a fake world sends no news)
            await asyncio.sleep(0.001)


async def test_the_store_is_first_to_start_and_last_to_stop(
    world: World, runtime: Runtime
) -> None:
    async def on_store() -> None:
        world.log.append("the store answers")

    await runtime.start(on_store)
    await runtime.stop()
    assert world.log == [
        "start etcd",
        "the store answers",
        "start kube-apiserver",
        "start kube-scheduler",
        "SIGTERM kube-scheduler",
        "SIGTERM kube-apiserver",
        "SIGTERM etcd",
    ]


async def test_nothing_that_uses_the_store_starts_before_it_answers(
    world: World, runtime: Runtime
) -> None:
    world.store_answers = False
    with pytest.raises(StartFailed, match="the database is away; start it"):
        await runtime.start(nothing)
    assert world.log == ["start etcd"]


async def test_a_process_that_keeps_crashing_fails_the_start_with_its_last_words(
    world: World, runtime: Runtime
) -> None:
    world.crashing.add("kube-apiserver")
    with pytest.raises(StartFailed) as caught:
        await runtime.start(nothing)
    assert caught.value.component == "kube-apiserver"
    assert caught.value.reason == "exit status 3"
    assert caught.value.lines == ("cannot open the file",)
    assert world.log.count("start kube-apiserver") == PACE.start_attempts
    assert "start kube-scheduler" not in world.log


async def test_a_process_that_never_answers_fails_the_start_with_the_probes_reason(
    world: World, tmp_path: Path
) -> None:
    runtime = make(world, tmp_path, {"ready_seconds": 0.05})
    world.sick.add("etcd")
    with pytest.raises(StartFailed, match=r"not ready after 0\.05 s.*etcd does not answer"):
        await runtime.start(nothing)
    await runtime.stop()
    assert not world.running


async def test_a_probe_that_hangs_at_the_deadline_does_not_hide_the_last_reason(
    world: World, tmp_path: Path
) -> None:
    runtime = make(world, tmp_path, {"ready_seconds": 0.05})
    world.sick.add("etcd")
    world.silent_after = 1
    with pytest.raises(StartFailed, match=r"not ready after 0\.05 s.*etcd does not answer"):
        await runtime.start(nothing)
    await runtime.stop()


async def test_a_process_that_ends_is_started_again(world: World, runtime: Runtime) -> None:
    await runtime.start(nothing)
    world.running["etcd"].end(1)
    await until(lambda: runtime.stores[0].child.state is State.READY)
    assert runtime.stores[0].child.restarts == 1
    assert runtime.components[0].child.restarts == 0


async def test_a_process_that_stops_answering_is_restarted(world: World, runtime: Runtime) -> None:
    await runtime.start(nothing)
    world.sick.add("kube-scheduler")
    await until(lambda: "SIGTERM kube-scheduler" in world.log)
    world.sick.clear()
    child = runtime.components[1].child
    await until(lambda: child.state is State.READY)
    assert child.last_exit is not None
    assert child.last_exit.reason.startswith("not alive: kube-scheduler does not answer")


async def test_nothing_is_restarted_because_the_store_is_away(
    world: World, runtime: Runtime
) -> None:
    await runtime.start(nothing)
    world.store_answers = False
    world.sick.add("kube-apiserver")
    before = list(world.log)
    probes = 0
    while probes < 20 * PACE.liveness_failures:
        await asyncio.sleep(0.001)
        probes += 1
    assert world.log == before
    assert not describe(runtime, {}, 0)["datastore"]["ready"]


async def test_a_stubborn_process_is_killed_and_hurry_does_it_sooner(
    world: World, tmp_path: Path
) -> None:
    runtime = make(world, tmp_path, {"grace_seconds": 1000})
    await runtime.start(nothing)
    world.stubborn.add("kube-scheduler")
    stopping = asyncio.create_task(runtime.stop())
    await until(lambda: "SIGTERM kube-scheduler" in world.log)
    runtime.hurry()
    await stopping
    assert "SIGKILL kube-scheduler" in world.log
    assert not world.running


async def test_the_status_tells_the_state_of_each_process(world: World, runtime: Runtime) -> None:
    await runtime.start(nothing)
    now = asyncio.get_running_loop().time()
    status = describe(runtime, {"version": "1"}, now)
    assert status["ready"]
    assert status["version"] == "1"
    assert [one["name"] for one in status["processes"]] == list(NAMES)
    assert {one["state"] for one in status["processes"]} == {"ready"}
    assert status["processes"][0]["pid"] == world.running["etcd"].pid
