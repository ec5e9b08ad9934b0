"""One child process as an explicit state machine; the only module that spawns and signals.

A child is in one of eight states. Eight events can happen to it, and each event is one method.
`lifecycle.TABLE` says which states may follow; an event that a state does not list is late (a
probe that answers after the exit) and changes nothing:

    initial, stopped, failed   start: starting, E;  stop: stopped
    starting                   ready: ready;  ready_elapsed, stop: terminating;  exited: E
    ready                      unhealthy, stop: terminating;  exited: E
    terminating                grace_elapsed: killing;  stop: terminating;  exited: stopped, E
    killing                    stop: killing;  exited: stopped, E
    backoff                    backoff_elapsed: starting, E;  stop: stopped

E is *backoff*, or *failed* when the restart policy says never. A spawn that the system refuses
is an exit at once. An exit leads to *stopped* when the end was asked for. So a child that ignores
SIGTERM is stopped:

| time   | event         | state       | what is done                                       |
|--------|---------------|-------------|----------------------------------------------------|
| 0.0 s  | start         | starting    | spawn in a session of its own, ready timer         |
| 0.4 s  | ready         | ready       | ready timer off                                    |
| 90.0 s | stop          | terminating | stop signal to the group, grace timer              |
| 100 s  | grace_elapsed | killing     | SIGKILL to the group                               |
| 100 s  | exited        | stopped     | what is left of the group is killed, leader reaped |

*A process is watched by a pidfd*, not by its pipe: a grandchild that keeps the pipe open cannot
hide the exit. When the pidfd fires the leader is still a zombie, so its pid cannot have been
given to anyone else, and SIGKILL to the group reaches only what the child left behind. Only then
is the leader reaped.

*An environment marker names the owner.* Every child, and whatever it starts, carries
``BYRE_MANAGED=<owner>:<component>``. After a SIGKILL of byre the next start looks for the marker,
at the pids of its pid files and among all processes that it may read, opens a pidfd *before* it
looks, and signals through the pidfd: a recycled pid is never touched.

*Nothing is inherited* but PATH, HOME and TZ: byre's own secrets never reach a child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datastore.launch import ProcessSpec, RestartPolicy
from supervisor.backoff import BackoffPolicy, Streak, next_delay
from supervisor.lifecycle import (
    TABLE,
    Clock,
    Event,
    Exit,
    Handle,
    Spawner,
    State,
    Timer,
    describe_status,
)
from supervisor.output import ComponentLog

MARKER = "BYRE_MANAGED"
INHERITED = ("PATH", "HOME", "TZ")
_CHUNK = 64 * 1024


class Child:
    """Keeps one process running until it is told to stop."""

    def __init__(
        self,
        spec: ProcessSpec,
        log: ComponentLog,
        *,
        spawner: Spawner,
        clock: Clock,
        fraction: Callable[[], float],
        policy: BackoffPolicy | None = None,
        on_change: Callable[[Child, Event], None] = lambda _child, _event: None,
    ) -> None:
        self.spec = spec
        self.log = log
        self.state = State.INITIAL
        self.last_exit: Exit | None = None
        self.restarts = 0
        self.is_crash_loop = False
        self.started_at: float | None = None
        self._spawner = spawner
        self._clock = clock
        self._fraction = fraction
        self._policy = policy or BackoffPolicy()
        self._on_change = on_change
        self._handle: Handle | None = None
        self._timer: Timer | None = None
        self._streak = Streak()
        self._is_wanted = False
        self._cause: str | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while nothing runs."""
        return self._handle.pid if self._handle else None

    def start(self) -> None:
        """Start the process; an earlier streak of short runs is forgotten."""
        if self._is_late(Event.START):
            return
        self._is_wanted = True
        self._streak = Streak()
        self._spawn(Event.START)

    def ready(self) -> None:
        """Take the news that the readiness probe was answered."""
        if self._is_late(Event.READY):
            return
        self._cancel_timer()
        self._move(Event.READY, State.READY)

    def ready_elapsed(self) -> None:
        """Give up waiting for readiness and end this run."""
        if not self._is_late(Event.READY_ELAPSED):
            self._terminate(Event.READY_ELAPSED, f"not ready after {self.spec.ready_seconds:g} s")

    def unhealthy(self, reason: str) -> None:
        """Take the news that the liveness probe failed for too long; end this run."""
        if not self._is_late(Event.UNHEALTHY):
            self._terminate(Event.UNHEALTHY, f"not alive: {reason}")

    def exited(self, status: int) -> None:
        """Take the exit of the process; `status` below zero is a signal."""
        if self._is_late(Event.EXITED):
            return
        self.log.end()
        words = (self._cause, describe_status(status))
        self._end(Event.EXITED, status, "; ".join(filter(None, words)))

    def stop(self) -> None:
        """Ask for the end; what comes after the exit is *stopped*, whatever was planned."""
        if self._is_late(Event.STOP):
            return
        self._is_wanted = False
        if self.state in {State.STARTING, State.READY}:
            self._terminate(Event.STOP, None)
        elif self.state in {State.TERMINATING, State.KILLING}:
            self._move(Event.STOP, self.state)
        else:
            self._cancel_timer()
            self._move(Event.STOP, State.STOPPED)

    def grace_elapsed(self) -> None:
        """Kill the group of a process that did not end in time."""
        if self._is_late(Event.GRACE_ELAPSED):
            return
        self._cancel_timer()
        self._signal(signal.SIGKILL)
        self._move(Event.GRACE_ELAPSED, State.KILLING)

    def backoff_elapsed(self) -> None:
        """Start the process again."""
        if self._is_late(Event.BACKOFF_ELAPSED):
            return
        self.restarts += 1
        self._spawn(Event.BACKOFF_ELAPSED)

    def _spawn(self, event: Event) -> None:
        self._cancel_timer()
        self._cause = None
        self.log.forget()
        self.started_at = self._clock.time()
        try:
            self._handle = self._spawner(self.spec, self.log.feed, self.exited)
        except OSError as error:
            self._end(event, None, f"cannot run {self.spec.argv[0]}: {error.strerror or error}")
            return
        self._timer = self._clock.call_later(self.spec.ready_seconds, self.ready_elapsed)
        self._move(event, State.STARTING)

    def _terminate(self, event: Event, cause: str | None) -> None:
        self._cancel_timer()
        self._cause = cause
        self._signal(self.spec.stop_signal)
        self._timer = self._clock.call_later(self.spec.grace_seconds, self.grace_elapsed)
        self._move(event, State.TERMINATING)

    def _end(self, event: Event, status: int | None, reason: str) -> None:
        self._cancel_timer()
        self._handle = None
        started = self.started_at if self.started_at is not None else self._clock.time()
        ran = self._clock.time() - started
        self.last_exit = Exit(status, reason, ran, self.log.last_lines())
        if not self._is_wanted:
            self._move(event, State.STOPPED)
        elif self.spec.restart is RestartPolicy.NEVER:
            self._move(event, State.FAILED)
        else:
            delay = next_delay(self._policy, self._streak, ran, self._fraction())
            self._streak, self.is_crash_loop = delay.streak, delay.is_crash_loop
            self._timer = self._clock.call_later(delay.seconds, self.backoff_elapsed)
            self._move(event, State.BACKOFF)

    def _is_late(self, event: Event) -> bool:
        return event not in TABLE[self.state]

    def _move(self, event: Event, to: State) -> None:
        if to not in TABLE[self.state][event]:
            raise AssertionError(f"{self.spec.name}: {event} in {self.state} led to {to}")
        self.state = to
        self._on_change(self, event)

    def _signal(self, number: signal.Signals) -> None:
        if self._handle:
            self._handle.signal_group(number)

    def _cancel_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


def child_environment(
    spec: ProcessSpec, owner: str, inherited: Mapping[str, str]
) -> dict[str, str]:
    """Return the whole environment of a child."""
    kept = {name: inherited[name] for name in INHERITED if name in inherited}
    return {**kept, **spec.environment, **spec.secrets, MARKER: f"{owner}:{spec.name}"}


class SystemSpawner:
    """Starts real processes and watches them on the running loop.

    Args:
        owner: Who the children belong to; part of their environment marker.
        pid_dir: Where ``<component>.pid`` is kept while a child runs.
        inherited: The environment that PATH, HOME and TZ are taken from.
    """

    def __init__(self, owner: str, pid_dir: Path, inherited: Mapping[str, str]) -> None:
        self._owner = owner
        self._pid_dir = pid_dir
        self._inherited = inherited

    def __call__(
        self,
        spec: ProcessSpec,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[int], None],
    ) -> Handle:
        """Start `spec` in a session of its own."""
        try:
            popen = subprocess.Popen(
                list(spec.argv),
                env=child_environment(spec, self._owner, self._inherited),
                cwd=spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                bufsize=0,
                user=spec.user,
                group=pwd.getpwnam(spec.user).pw_gid if spec.user else None,
                extra_groups=[] if spec.user else None,
            )
        except (KeyError, ValueError, subprocess.SubprocessError) as error:
            raise OSError(f"user {spec.user}: {error}") from error
        pid_file = self._pid_dir / f"{spec.name}.pid"
        with contextlib.suppress(OSError):  # the marker alone finds an orphan too
            pid_file.write_text(f"{popen.pid}\n")
        return _Running(popen, pid_file, on_output, on_exit)


class _Running:
    """A process of ours, its pipe and its pidfd."""

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        pid_file: Path,
        on_output: Callable[[bytes], None],
        on_exit: Callable[[int], None],
    ) -> None:
        assert popen.stdout is not None
        self._popen = popen
        self._pid_file = pid_file
        self._on_output = on_output
        self._on_exit = on_exit
        self._pipe = popen.stdout
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(popen.pid)
        os.set_blocking(self._pipe.fileno(), False)
        self._loop.add_reader(self._pipe.fileno(), self._read)
        self._loop.add_reader(self._pidfd, self._exited)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def _read(self) -> bool:
        """Read once; return whether there may be more."""
        try:
            chunk = self._pipe.read(_CHUNK)
        except OSError:
            chunk = b""
        if chunk:
            self._on_output(chunk)
        elif chunk is not None and not self._pipe.closed:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()
        return bool(chunk)

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # A grandchild that floods the pipe must not keep us here: 1 MiB holds any farewell.
        for _ in range(16):
            if self._pipe.closed or not self._read():
                break
        self.signal_group(signal.SIGKILL)
        if not self._pipe.closed:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()
        status = self._popen.wait()
        self._pid_file.unlink(missing_ok=True)
        self._on_exit(status)


def signal_pidfd(pidfd: int, number: signal.Signals) -> None:
    """Signal the very process that `pidfd` was opened for; one that is gone is left in peace."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


class Finished(NamedTuple):
    """What a short command left: its wait status and its last lines."""

    status: int
    lines: tuple[str, ...]


def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    timeout_seconds: float,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Run a command to its end; blocks.

    Raises:
        OSError: The command cannot be executed.
        TimeoutError: It took too long; its group has been killed.
    """
    lines: deque[str] = deque(maxlen=1000)
    with subprocess.Popen(
        list(argv),
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as popen:
        try:
            for line in _lines(popen, timeout_seconds):
                lines.append(line)
                if on_line:
                    on_line(line)
            return Finished(popen.wait(), tuple(lines))
        finally:
            if popen.returncode is None:
                os.killpg(popen.pid, signal.SIGKILL)


def _lines(popen: subprocess.Popen[bytes], timeout_seconds: float) -> Iterator[str]:
    assert popen.stdout is not None
    deadline = time.monotonic() + timeout_seconds
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(popen.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"no end within {timeout_seconds:g} s")
            chunk = os.read(popen.stdout.fileno(), _CHUNK)
            *complete, pending = (pending + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in complete)
            if not chunk:
                break
    if pending:
        yield pending.decode(errors="replace")
