"""A server process under test: started on a free port, awaited, and ended by its own id."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc

READY_SECONDS = 60.0
ANY_RANGE = b"\x0a\x01\x00"
"""RangeRequest of the key NUL."""


LOWEST_PORT = 10_000
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
# pytest-randomly seeds the usual generator alike in every process of a run.
_chance = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on and that this process was never given before.

    It is below the range from which the kernel takes the ports of clients: one from there may be
    taken by anybody's connection before the server listens, or while it is restarted; even by a
    client that waits for that server, which then talks to itself.
    """
    first = int(EPHEMERAL.read_text().split()[0])
    end = first if first > LOWEST_PORT + 1000 else 65_536
    while True:
        port = _chance.randrange(LOWEST_PORT, end)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


class Listen(NamedTuple):
    """Where a server listens for clients."""

    url: str
    target: str
    """As a gRPC channel takes it."""
    credentials: grpc.ChannelCredentials | None = None

    @classmethod
    def tcp(cls, credentials: grpc.ChannelCredentials | None = None) -> Listen:
        """Choose a free port, with TLS when there are credentials for it."""
        address = f"127.0.0.1:{free_port()}"
        scheme = "https" if credentials else "http"
        return cls(f"{scheme}://{address}", address, credentials)

    @classmethod
    def unix(cls, path: Path) -> Listen:
        """Choose a socket."""
        return cls(f"unix://{path}", f"unix:{path}")


def suspend(pid: int) -> None:
    """Stop a process, and wait until each of its threads has: they go on for a moment."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")

    def all_stopped() -> bool:
        stats = [(thread / "stat").read_text() for thread in threads.iterdir()]
        return all(stat.rpartition(") ")[2].startswith("T") for stat in stats)

    eventually(all_stopped, f"process {pid} is stopped")


def eventually(condition: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def answers(target: str, credentials: grpc.ChannelCredentials | None = None) -> bool:
    """Say whether a linearizable read is answered now."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    channel = (
        grpc.secure_channel(target, credentials, options=options)
        if credentials
        else grpc.insecure_channel(target, options=options)
    )
    with channel:
        try:
            read: Any = channel.unary_unary("/etcdserverpb.KV/Range")
            read(ANY_RANGE, timeout=2)
        except grpc.RpcError as error:
            return bool(
                error.code()
                not in {
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                }
            )
        return True


@dataclass
class Server:
    """One server: where it listens and how to treat it badly."""

    name: str
    argv: Sequence[str]
    target: str
    """As a gRPC channel takes it."""
    http: str
    """Base URL of `/health` and `/metrics`."""
    directory: Path
    credentials: grpc.ChannelCredentials | None = None
    cwd: Path | None = None
    environment: Mapping[str, str] | None = None
    """In place of this process's."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.directory / f"{self.name}.log"

    def start(self) -> None:
        """Start, and return when a read is answered."""
        process = self.spawn()

        def ready() -> bool:
            if process.poll() is not None:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise AssertionError(f"{self.name} ended with {process.returncode}:\n{tail}")
            return answers(self.target, self.credentials)

        eventually(ready, f"{self.name} answers on {self.target}")

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start, and return at once."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.argv, stdout=output, stderr=output, cwd=self.cwd, env=self.environment
            )
        return self.process

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self.process is not None
        if number == signal.SIGSTOP:
            suspend(self.process.pid)
        else:
            self.process.send_signal(number)

    def stop(self) -> int:
        """End it in order and return its exit status."""
        self.signal(signal.SIGTERM)
        return self._wait(60)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.signal(signal.SIGKILL)
        self._wait(60)

    def _wait(self, seconds: float) -> int:
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def close(self) -> None:
        """End it, however it is."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
