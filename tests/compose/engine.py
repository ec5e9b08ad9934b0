"""A Docker engine for a test session: the one that runs already, or a private one."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.running import eventually
from tests.tools.docker import NoDocker, base_image, client_environment, obtain, place, run, works

OFFICIAL_IMAGE = "debian:bookworm-slim"
OWN_IMAGE = "byre-test/debian:bookworm"
BUILD_CACHE = "6GB"


@dataclass(frozen=True)
class Engine:
    """An engine that answers, and how to speak to it."""

    environment: Mapping[str, str]
    is_private: bool

    def docker(self, *arguments: str, seconds: float = 300) -> str:
        """Run the client, which must succeed; return what it prints."""
        return run(["docker", *arguments], environment=self.environment, seconds=seconds)

    def inspect(self, *names: str) -> Any:
        """Return what the engine knows about things of any kind."""
        return json.loads(self.docker("inspect", *names))

    def names(self, kind: str, *filters: str) -> set[str]:
        """Return the ids of all containers, networks or volumes."""
        everything = ("--all",) if kind == "container" else ()
        return set(self.docker(kind, "ls", *everything, "--quiet", *filters).split())

    def image_settings(self) -> Mapping[str, str]:
        """Return the build's settings: the official images where they can be had."""
        if works(["docker", "pull", "--quiet", OFFICIAL_IMAGE], self.environment):
            return {}
        if not works(["docker", "image", "inspect", OWN_IMAGE], self.environment):
            self.docker("import", str(base_image()), OWN_IMAGE)
        return {
            "BASE_IMAGE": OWN_IMAGE,
            "POSTGRES_IMAGE": "debian-postgres",
            "MARIADB_IMAGE": "debian-mariadb",
        }


@contextmanager
def running_engine(directory: Path) -> Iterator[Engine]:
    """Yield the engine that runs, or start one whose sockets and logs are in `directory`."""
    environment = client_environment()
    if works(["docker", "info"], environment):
        yield Engine(environment, is_private=False)
        return
    if "DOCKER_HOST" in os.environ:
        raise NoDocker(f"no engine answers at DOCKER_HOST={os.environ['DOCKER_HOST']}")
    if os.geteuid():
        raise NoDocker("no Docker engine answers, and only root can start one: start one")
    with _only_one(), _private_engine(directory, environment) as engine:
        yield engine


@contextmanager
def _only_one() -> Iterator[None]:
    """Wait for other test sessions of this machine: the images are kept between them."""
    place().mkdir(parents=True, exist_ok=True)
    with (place() / "engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _private_engine(directory: Path, environment: Mapping[str, str]) -> Iterator[Engine]:
    _require_forwarding()
    _end_leftover()
    socket = directory / "docker.sock"
    settings = directory / "daemon.json"
    storage = {"enabled": True, "defaultKeepStorage": BUILD_CACHE}
    settings.write_text(json.dumps({"builder": {"gc": storage}}))
    with (directory / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            _daemon(directory, socket, settings),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    own = {**environment, "DOCKER_HOST": f"unix://{socket}"}

    def answers() -> bool:
        if process.poll() is not None:
            text = (directory / "dockerd.log").read_text(errors="replace")[-3000:]
            raise NoDocker(f"dockerd ended with {process.returncode}:\n{text}")
        return works(["docker", "info"], own)

    try:
        eventually(answers, "dockerd answers", 60)
        engine = Engine(own, is_private=True)
        _remove_leftovers(engine)
        yield engine
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _daemon(directory: Path, socket: Path, settings: Path) -> Sequence[str]:
    return (
        obtain("dockerd"),
        f"--config-file={settings}",
        # Kept between sessions: what the images are made of is not fetched and built again.
        f"--data-root={place() / 'engine'}",
        f"--exec-root={directory / 'exec'}",
        f"--pidfile={_pidfile()}",
        f"--host=unix://{socket}",
        # The machine's rules stay as they are. Ports are published by docker-proxy, containers
        # of a network need no rule, and none has to reach the world.
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
        "--bridge=none",
    )


def _pidfile() -> Path:
    return place() / "dockerd.pid"


def _end_leftover() -> None:
    """End the engine of a session that was killed; nobody else has the lock that we have."""
    try:
        pid = int(_pidfile().read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return
    if f"--pidfile={_pidfile()}".encode() in command:
        os.kill(pid, signal.SIGTERM)
        eventually(
            lambda: not _pidfile().exists(), f"dockerd {pid} of an earlier session ends", 60
        )


def _require_forwarding() -> None:
    """Refuse a machine on which containers could not speak to each other."""
    rules = run([obtain("iptables"), "-S", "FORWARD"], seconds=30)
    if rules.startswith("-P FORWARD DROP"):
        raise NoDocker(
            "iptables' policy for FORWARD is DROP, as an engine that ran here before leaves it: "
            "start that engine again, or say `iptables -P FORWARD ACCEPT`"
        )


def _remove_leftovers(engine: Engine) -> None:
    """Remove what a session that was killed has left in the private engine."""
    if containers := engine.names("container"):
        engine.docker("rm", "--force", "--volumes", *containers)
    engine.docker("network", "prune", "--force")
    if volumes := engine.names("volume"):
        engine.docker("volume", "rm", "--force", *volumes)
    tags = engine.docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", "byre-*").split()
    if tags:
        engine.docker("image", "rm", "--force", *tags)
    engine.docker("image", "prune", "--force")
