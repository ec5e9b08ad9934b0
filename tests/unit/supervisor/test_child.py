"""The child machine on a fake clock with fake processes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.launch import ProcessSpec, RestartPolicy
from supervisor.backoff import BackoffPolicy
from supervisor.child import Child, child_environment
from supervisor.lifecycle import TABLE, Event, State
from supervisor.output import ComponentLog


@dataclass
class FakeTimer:
    due: float
    callback: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[FakeTimer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object], /) -> FakeTimer:
        timer = FakeTimer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def pending(self) -> list[FakeTimer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.pending() if timer.due <= end]:
            timer = min(due, key=lambda candidate: candidate.due)
            self.timers.remove(timer)
            self.now = timer.due
            timer.callback()
        self.now = end


@dataclass
class FakeHandle:
    pid: int
    on_exit: Callable[[int], None]
    signals: list[signal.Signals] = field(default_factory=list)
    gone: bool = False

    def signal_group(self, number: signal.Signals) -> None:
        assert not self.gone
        self.signals.append(number)

    def end(self, status: int) -> None:
        self.gone = True
        self.on_exit(status)


class FakeSpawner:
    def __init__(self) -> None:
        self.handles: list[FakeHandle] = []
        self.refuse = False

    def __call__(
        self,
        spec: ProcessSpec,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[int], None],
    ) -> FakeHandle:
        if self.refuse:
            raise FileNotFoundError(2, "No such file or directory")
        on_output(b"hello\n")
        self.handles.append(FakeHandle(1000 + len(self.handles), on_exit))
        return self.handles[-1]

    @property
    def alive(self) -> list[FakeHandle]:
        return [handle for handle in self.handles if not handle.gone]


class World:
    """A child with everything around it faked."""

    def __init__(self, restart: RestartPolicy = RestartPolicy.ALWAYS) -> None:
        self.clock = FakeClock()
        self.spawner = FakeSpawner()
        self.seen: list[tuple[Event, State]] = []
        spec = ProcessSpec(
            "db", ["db"], ready_seconds=30, grace_seconds=10, restart=restart, secrets={"P": "x"}
        )
        self.child = Child(
            spec,
            ComponentLog(Path("/dev/null/db.log")),
            spawner=self.spawner,
            clock=self.clock,
            fraction=lambda: 0.5,
            policy=BackoffPolicy(crash_loop_runs=3),
            on_change=lambda child, event: self.seen.append((event, child.state)),
        )

    @property
    def process(self) -> FakeHandle:
        return self.spawner.handles[-1]


def started() -> World:
    world = World()
    world.child.start()
    return world


def serving() -> World:
    world = started()
    world.child.ready()
    return world


def test_a_child_that_answers_is_ready() -> None:
    world = serving()
    assert world.child.state is State.READY
    assert world.child.pid == 1000
    assert not world.clock.pending()


def test_a_child_that_is_not_ready_in_time_is_ended_and_started_again() -> None:
    world = started()
    world.clock.advance(30)
    assert world.child.state is State.TERMINATING
    assert world.process.signals == [signal.SIGTERM]
    world.process.end(0)
    assert world.child.state is State.BACKOFF
    assert world.child.last_exit is not None
    assert world.child.last_exit.reason == "not ready after 30 s; exit status 0"
    world.clock.advance(0.5)
    assert world.child.state is State.STARTING
    assert world.child.restarts == 1


def test_a_child_that_ignores_the_stop_signal_is_killed_after_its_grace() -> None:
    world = serving()
    world.child.stop()
    world.clock.advance(9.9)
    assert world.process.signals == [signal.SIGTERM]
    world.clock.advance(0.2)
    assert world.child.state is State.KILLING
    assert world.process.signals == [signal.SIGTERM, signal.SIGKILL]
    world.process.end(-9)
    assert world.child.state is State.STOPPED


def test_a_stop_during_the_wait_for_a_restart_cancels_it() -> None:
    world = serving()
    world.process.end(1)
    world.child.stop()
    world.clock.advance(1000)
    assert world.child.state is State.STOPPED
    assert len(world.spawner.handles) == 1


def test_a_stop_while_an_unhealthy_child_ends_prevents_its_restart() -> None:
    world = serving()
    world.child.unhealthy("no answer")
    world.child.stop()
    world.process.end(0)
    assert world.child.state is State.STOPPED


def test_an_unhealthy_child_is_restarted_with_the_reason_kept() -> None:
    world = serving()
    world.child.unhealthy("no answer")
    world.process.end(-15)
    assert world.child.state is State.BACKOFF
    assert world.child.last_exit is not None
    assert world.child.last_exit.reason == "not alive: no answer; killed by SIGTERM"
    assert world.child.last_exit.lines == ("hello",)


def test_a_crash_loop_is_named_and_a_stable_run_ends_it() -> None:
    world = started()
    for _ in range(3):
        world.process.end(1)
        world.clock.advance(60)
    assert world.child.is_crash_loop
    world.child.ready()
    world.clock.advance(600)
    world.process.end(1)
    assert not world.child.is_crash_loop


def test_a_child_that_is_never_restarted_fails() -> None:
    world = World(RestartPolicy.NEVER)
    world.child.start()
    world.process.end(2)
    assert world.child.state is State.FAILED


def test_a_command_that_does_not_exist_is_an_exit_with_a_reason() -> None:
    world = World()
    world.spawner.refuse = True
    world.child.start()
    assert world.child.state is State.BACKOFF
    assert world.child.last_exit is not None
    assert world.child.last_exit.reason == "cannot run db: No such file or directory"


def test_a_late_probe_changes_nothing() -> None:
    world = serving()
    world.process.end(1)
    world.child.ready()
    world.child.unhealthy("late")
    assert world.child.state is State.BACKOFF


def test_a_child_inherits_three_variables_and_no_secret_of_byre() -> None:
    spec = ProcessSpec("db", ["db"], environment={"A": "1"}, secrets={"PASSWORD": "s"})
    inherited = {"PATH": "/bin", "HOME": "/h", "BYRE_SECRET": "no", "LD_PRELOAD": "no"}
    assert child_environment(spec, "me", inherited) == {
        "PATH": "/bin",
        "HOME": "/h",
        "A": "1",
        "PASSWORD": "s",
        "BYRE_MANAGED": "me:db",
    }


ACTIONS = st.lists(
    st.sampled_from(
        ["start", "ready", "unhealthy", "stop", "exit", "crash", "wait", "wait-long", "refuse"]
    ),
    max_size=60,
)


def act(world: World, action: str) -> None:
    match action:
        case "start":
            world.child.start()
        case "ready":
            world.child.ready()
        case "unhealthy":
            world.child.unhealthy("probe")
        case "stop":
            world.child.stop()
        case "exit" | "crash":
            for handle in world.spawner.alive:
                handle.end(0 if action == "exit" else -11)
        case "wait":
            world.clock.advance(0.7)
        case "wait-long":
            world.clock.advance(45)
        case "refuse":
            world.spawner.refuse = not world.spawner.refuse


@given(ACTIONS, st.sampled_from(RestartPolicy))
def test_the_machine_never_leaves_its_table(actions: list[str], restart: RestartPolicy) -> None:
    world = World(restart)
    state = State.INITIAL
    for action in actions:
        world.seen.clear()
        act(world, action)
        for event, after in world.seen:
            assert after in TABLE[state][event]
            state = after
        assert state is world.child.state
        running = {State.STARTING, State.READY, State.TERMINATING, State.KILLING}
        assert (state in running) == bool(world.spawner.alive) == (world.child.pid is not None)
        timed = {State.STARTING, State.TERMINATING, State.BACKOFF}
        assert len(world.clock.pending()) == (1 if state in timed else 0)


@given(ACTIONS)
def test_after_stop_and_the_exit_nothing_runs(actions: list[str]) -> None:
    world = World()
    for action in actions:
        act(world, action)
    world.child.stop()
    for handle in world.spawner.alive:
        handle.end(0)
    world.clock.advance(10_000)
    assert world.child.state is State.STOPPED
    assert not world.spawner.alive


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_stopped(state: State) -> None:
    assert Event.STOP in TABLE[state]
