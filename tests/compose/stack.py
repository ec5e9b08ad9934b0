"""A stack under test: built from a copy of the checkout, started, used as from the host."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from datastore.paths import Paths
from supervisor.binaries import Binaries
from tests.compose.api import Api, is_written
from tests.compose.engine import Engine
from tests.support.running import eventually, free_port
from tests.tools.build import obtain as obtain_server
from tests.tools.docker import run
from tests.tools.kube import NAMES as KUBERNETES

ROOT = Path(__file__).parents[2]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "datastore", "supervisor", "compose")
STACKS = ("sqlite", "postgres", "mariadb", "etcd")
DATABASES = ("postgres", "mariadb")
BUILD_SECONDS = 1500
AUTHORITIES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def kubectl_program() -> Path:
    """Return the kubectl that byre itself would use."""
    return Binaries(Paths.default().cache_dir).obtain("kubectl")


def copy_checkout(directory: Path, names: tuple[str, ...] = PARTS) -> Path:
    """Copy what the images are made of, with what this machine adds to their build."""
    ignored = shutil.ignore_patterns("__pycache__", "admin.conf", ".env")
    for name in names:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=ignored)
        else:
            shutil.copy(source, directory / name)
    local = directory / "compose" / "local"
    found = Binaries(Paths.default().cache_dir).obtain_all(KUBERNETES)
    for name, path in {**found, "etcd": obtain_server("etcd")}.items():
        _link(path, local / "bin" / name)
    if authority := next(filter(None, map(os.environ.get, AUTHORITIES)), ""):
        shutil.copy(authority, local / "ca.crt")
    if index := os.environ.get("PIP_INDEX_URL"):
        (local / "pip.conf").write_text(f"[global]\nindex-url = {index}\n")
    return directory


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


class Stack:
    """One compose project."""

    def __init__(self, engine: Engine, checkout: Path, name: str, settings: Mapping[str, str]):
        self.name = name
        self.engine = engine
        self.directory = checkout / "compose" / name
        self.project = f"byre-test-{name}-{secrets.token_hex(4)}"
        self.kubeconfig = self.directory / "admin.conf"
        self.port = free_port()
        self.environment = {
            **engine.environment,
            **settings,
            "BYRE_API_PORT": str(self.port),
            "COMPOSE_PROJECT_NAME": self.project,
        }
        self.volumes: set[str] = set()
        """The names of all volumes that its containers had, unnamed ones included."""
        self._is_up = False

    def compose(self, *arguments: str, seconds: float = 300) -> str:
        """Run `docker compose` in the stack's directory, which must succeed."""
        return run(
            ["docker", "compose", *arguments],
            environment=self.environment,
            cwd=self.directory,
            seconds=seconds,
        )

    def config(self) -> Any:
        """Return the stack as compose understands it."""
        return json.loads(self.compose("config", "--format=json"))

    def let_builds_out(self) -> None:
        """Give the builds of a private engine the machine's network: it has no other."""
        override = self.directory / "host-network.yaml"
        services = {
            name: {"build": {"network": "host"}}
            for name, service in self.config()["services"].items()
            if "build" in service
        }
        override.write_text(yaml.safe_dump({"services": services}))
        self.environment["COMPOSE_FILE"] = f"compose.yaml:{override.name}"

    def start(self) -> str:
        """Run the script that a user runs, which builds what is missing; return what it prints."""
        output = run(
            [self.directory.parent / "start", self.name],
            environment=self.environment,
            seconds=BUILD_SECONDS,
        )
        self._is_up = True
        self.volumes = {
            mount["Name"]
            for container in self.containers()
            for mount in container["Mounts"]
            if mount["Type"] == "volume"
        }
        return output

    def ensure_up(self) -> None:
        """Start it if an earlier test has taken it down."""
        if not self._is_up:
            self.start()

    def down(self, *arguments: str) -> None:
        """Take it down, as a user does."""
        self._is_up = False
        self.compose("down", *arguments)

    def things(self) -> Mapping[str, set[str]]:
        """Return what the engine has of it, of each kind."""
        label = f"--filter=label=com.docker.compose.project={self.project}"
        return {
            kind: self.engine.names(kind, label) for kind in ("container", "network", "volume")
        }

    def await_healthy(self, container: str) -> None:
        """Wait until a container's health check is content."""

        def healthy() -> bool:
            state = self.engine.inspect(container)[0]["State"]
            return bool(state["Health"]["Status"] == "healthy")

        eventually(healthy, f"{container} is healthy", 120)

    def containers(self) -> Any:
        """Return what the engine knows about all of the stack's containers."""
        return self.engine.inspect(*self.compose("ps", "--all", "--quiet").split())

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self.compose("ps", "--all", "--quiet", service).strip()

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl on this machine, which must succeed."""
        return run([kubectl_program(), f"--kubeconfig={self.kubeconfig}", *arguments], seconds=120)

    def kill(self, service: str) -> None:
        """Crash a service and start it again once it is gone."""
        self.engine.docker("kill", self.container(service))
        assert self.engine.inspect(self.container(service))[0]["State"]["Status"] == "exited"
        self.engine.docker("start", self.container(service))

    def api(self, timeout_seconds: float = 15.0) -> Api:
        """Return a connection of the administrator's."""
        return Api(self.kubeconfig, timeout_seconds)

    def await_writable(self) -> None:
        """Wait until a write goes through from end to end."""
        with self.api(5) as api:
            eventually(
                lambda: is_written(api, {"generateName": "probe-"}), "a write is accepted", 120
            )

    def remove(self) -> None:
        """Remove the project and its images, however it is."""
        subprocess.run(
            ["docker", "compose", "--profile=*", "down", "--volumes", "--timeout=1"],
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            timeout=300,
            check=False,
        )
