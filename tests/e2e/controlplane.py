"""A control plane under test: a real `byre controller` with real Kubernetes programs."""

from __future__ import annotations

import json
import os
import queue
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.running import eventually, free_port

ROOT = Path(__file__).parents[2]
READY_SECONDS = 300.0
PATIENCE_SECONDS = 120.0
BYRE = (sys.executable, "-P", "-m", "supervisor.cli")


class Finished(NamedTuple):
    """What a byre command left."""

    status: int
    output: str
    errors: str


def byre(
    *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 300
) -> Finished:
    """Run a byre command to its end."""
    done = subprocess.run(
        [*BYRE, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def count(text: str, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """Add up a counter of a page of metrics by some of its labels."""
    found: Counter[tuple[str, ...]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels[label] for label in labels)] += int(sample.value)
    return found


def write_config(path: Path, storage: Mapping[str, Any], **api: Any) -> int:
    """Write a configuration with free ports; return the API server's port."""
    port = free_port()
    spec = {
        "api": {"port": port, **api},
        "controllerManager": {"extraArgs": {"secure-port": free_port()}},
        "scheduler": {"extraArgs": {"secure-port": free_port()}},
        "storage": storage,
    }
    path.write_text(yaml.safe_dump({"spec": spec}))
    return port


class Patient(httpx.HTTPTransport):
    """Asks again where the API server asks for it, as Kubernetes' own clients do.

    Until it has read its store again after a start or a crash of the store, lists are refused.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send until the answer is not to come again later."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = super().handle_request(request)
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or time.monotonic() > deadline:
                return answer
            answer.close()
            time.sleep(0.2)


class ControlPlane:
    """One data directory and the byre that runs on it."""

    def __init__(self, directory: Path, storage: Mapping[str, Any], **api: Any) -> None:
        self.data_dir = directory / "data"
        self.config = directory / "byre.yaml"
        self.port = write_config(self.config, storage, **api)
        self.lines: list[str] = []
        self.prefix: Sequence[str] = ()
        """The command that byre is run by, if any."""
        self.mode: Sequence[str] = ("--single",)
        """What kind of controller it is."""
        # kubectl keeps what a server offers by its port, and ports come again.
        self._cache = directory / "kubectl"
        self._byre: subprocess.Popen[str] | None = None
        self._client: httpx.Client | None = None

    @property
    def pid(self) -> int:
        """The pid of the running byre."""
        assert self._byre is not None
        return self._byre.pid

    @property
    def place(self) -> Sequence[str]:
        """The options that name this control plane."""
        return ("--data-dir", str(self.data_dir), "--config", str(self.config))

    def start(self, *arguments: str) -> None:
        """Start, and return when byre says that everything is ready."""
        lines = self.launch(*arguments)
        for line in iter(lambda: lines.get(timeout=READY_SECONDS), None):
            if line.startswith("control plane ready"):
                return
        assert self._byre is not None
        status = self._byre.wait(60)
        raise AssertionError(f"byre ended with {status} instead:\n" + "".join(self.lines))

    def launch(self, *arguments: str) -> queue.Queue[str | None]:
        """Start without waiting; return the lines that byre says, None at their end."""
        self._byre = subprocess.Popen(
            [*self.prefix, *BYRE, "controller", *self.mode, *self.place, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        found: queue.Queue[str | None] = queue.Queue()
        self.lines = []
        threading.Thread(target=self._read, args=(self._byre, found), daemon=True).start()
        return found

    def signal(self, number: signal.Signals) -> int:
        """Send byre a signal and wait for its end; return the exit status."""
        if self._client:
            self._client.close()
            self._client = None
        assert self._byre is not None
        self._byre.send_signal(number)
        return self._byre.wait(120)

    def wait(self) -> int:
        """Wait until byre ends by itself; return the exit status."""
        assert self._byre is not None
        return self._byre.wait(120)

    def stop(self) -> int:
        """Stop in order."""
        return self.signal(signal.SIGTERM)

    def close(self) -> None:
        """Stop, if need be, and remove everything."""
        if self._byre is not None and self._byre.poll() is None:
            self.stop()
        byre("reset", "--yes", *self.place)

    @property
    def api(self) -> httpx.Client:
        """A client of the API server with the administrator's certificate."""
        if self._client is None:
            pki = self.data_dir / "pki"
            context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
            context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
            self._client = httpx.Client(
                base_url=f"https://127.0.0.1:{self.port}",
                transport=Patient(verify=context),
                timeout=120,
            )
        return self._client

    def get(self, path: str, **parameters: Any) -> Any:
        """GET an object or a list, which must be there."""
        answer = self.api.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def counted(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        """Return a counter of the API server's by some of its labels."""
        return count(self.api.get("/metrics").text, name, *labels)

    def store(self) -> httpx.Client:
        """Return a client of what the shim serves by HTTP."""
        (endpoint,) = self.status()["datastore"]["endpoint"]
        transport = httpx.HTTPTransport(uds=endpoint.removeprefix("unix://"))
        return httpx.Client(base_url="http://localhost", transport=transport)

    def create(self, path: str, content: Mapping[str, Any]) -> Any:
        """POST an object, which must be accepted."""
        answer = self.api.post(path, json=content)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def namespace(self, name: str) -> str:
        """Make a namespace and return the path of its core objects."""
        self.create("/api/v1/namespaces", {"metadata": {"name": name}})
        return f"/api/v1/namespaces/{name}"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run `byre kubectl`, which must succeed; return what it prints."""
        done = subprocess.run(
            [*BYRE, *self.place, "kubectl", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "KUBECACHEDIR": str(self._cache)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> Any:
        """Return what `byre status -o json` prints."""
        return json.loads(byre("status", "-o", "json", *self.place).output)

    def process(self, name: str) -> Any:
        """Return one process of the status."""
        return next(one for one in self.status()["processes"] if one["name"] == name)

    def await_ready(self) -> Any:
        """Wait until byre says that everything is ready; return its status."""
        eventually(lambda: self.status()["ready"], "everything is ready", 120)
        return self.status()

    def await_writable(self) -> None:
        """Wait until a write goes through from end to end."""
        path = "/api/v1/namespaces/default/configmaps"

        def writes() -> bool:
            try:
                answer = self.api.post(path, json={"metadata": {"generateName": "probe-"}})
            except httpx.HTTPError:
                return False
            return answer.status_code == 201

        eventually(writes, "a write is accepted", 120)

    def _read(self, process: subprocess.Popen[str], found: queue.Queue[str | None]) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for line in stream:
                self.lines.append(line)
                found.put(line)
        found.put(None)
