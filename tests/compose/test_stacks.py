"""Every stack on a real engine: it starts, it is used from the host, it survives, it goes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.compose.api import CONFIGMAPS, is_written
from tests.compose.stack import DATABASES, Stack
from tests.support.running import eventually

pytestmark = [pytest.mark.kube, pytest.mark.servers, pytest.mark.timeout(2400)]

WRITERS = 4
SOME = 40
"""How many acknowledged writes are enough to go on."""

STRANGER = r"""
import socket, ssl
context = ssl.create_default_context(cafile="/etc/byre/datastore/ca.crt")
with socket.create_connection(("datastore", 2379), 5) as plain:
    with context.wrap_socket(plain, server_hostname="datastore") as tls:
        try:
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            print("open" if tls.recv(1) else "refused")
        except (ssl.SSLError, ConnectionError):
            print("refused")
"""
"""A client that trusts the datastore, and has no certificate of its own."""


class Load:
    """Clients that create objects and remember those that were acknowledged."""

    def __init__(self, stack: Stack, name: str) -> None:
        self._stack = stack
        self._name = name
        self._done = threading.Event()
        self._acknowledged: set[str] = set()
        self._threads = [
            threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)
        ]

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._done.set()
            for thread in self._threads:
                thread.join()

    def await_more(self) -> None:
        goal = len(self._acknowledged) + SOME
        eventually(lambda: len(self._acknowledged) >= goal, f"{goal} writes", 180)

    def missing(self) -> set[str]:
        """Return the acknowledged objects that the store does not have."""
        items: list[dict] = []
        proceed = ""
        with self._stack.api() as api:
            while True:
                selector = f"load={self._name}"
                query: dict[str, str | int] = {"limit": 500, "labelSelector": selector}
                answer = api.get(CONFIGMAPS, **query, **{"continue": proceed})
                assert answer.status == 200, answer.content
                items += answer.content["items"]
                proceed = answer.content["metadata"].get("continue", "")
                if not proceed:
                    break
        there = {item["metadata"]["name"] for item in items if item["data"] == {"n": "1"}}
        return self._acknowledged - there

    def _write(self, number: int) -> None:
        count = 0
        with self._stack.api() as api:
            while not self._done.is_set():
                count += 1
                name = f"{self._name}-{number}-{count}"
                if is_written(api, {"name": name, "labels": {"load": self._name}}):
                    self._acknowledged.add(name)
                else:
                    self._done.wait(0.05)


def test_kubectl_from_the_host_works(stack: Stack) -> None:
    stack.kubectl("create", "deployment", "hello", "--image=example.com/hello")
    # kube-controller-manager makes the replica set and its pod, the scheduler finds no node.
    condition = '{.items[*].status.conditions[?(@.type=="PodScheduled")].status}'
    arguments = ("get", "pods", "--selector=app=hello", f"--output=jsonpath={condition}")
    eventually(lambda: stack.kubectl(*arguments) == "False", "a pod finds no node", 60)
    assert "hello" in stack.kubectl("get", "deployments", "--output=name")


def test_the_start_names_the_kubeconfig(stack: Stack) -> None:
    output = stack.start()
    assert f"control plane ready: https://127.0.0.1:{stack.port}" in output
    assert f"export KUBECONFIG={stack.directory / 'admin.conf'}" in output
    assert (stack.directory / "admin.conf").stat().st_mode & 0o777 == 0o600


def test_only_the_api_is_published_and_only_on_loopback(stack: Stack) -> None:
    published = {
        port: bindings
        for container in stack.containers()
        for port, bindings in container["NetworkSettings"]["Ports"].items()
        if bindings
    }
    assert published == {"6443/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]}


def test_nothing_that_runs_is_root_or_writes_into_its_image(stack: Stack) -> None:
    for container in stack.containers():
        name = container["Name"]
        assert container["HostConfig"]["ReadonlyRootfs"], name
        assert container["HostConfig"]["CapDrop"] == ["ALL"], name
        if container["State"]["Running"]:
            stack.await_healthy(container["Id"])
            assert stack.engine.docker("exec", container["Id"], "id", "-u").strip() == "999"
        else:
            assert "credentials" in container["Config"]["Image"], name


def test_the_datastore_refuses_a_client_without_certificate(stack: Stack) -> None:
    python = ("/opt/byre/bin/python", "-c", STRANGER)
    assert stack.engine.docker("exec", stack.container("datastore"), *python) == "refused\n"


def test_no_acknowledged_write_is_lost_when_the_store_is_killed(stack: Stack) -> None:
    services = ["datastore", "database"] if stack.name in DATABASES else ["datastore"]
    with Load(stack, "kill").running() as load:
        for service in services:
            load.await_more()
            stack.kill(service)
            load.await_more()
    assert load.missing() == set()


def test_a_new_password_is_taken_by_a_restart_and_shown_nowhere(stack: Stack) -> None:
    if stack.name not in DATABASES:
        assert "database-credentials" not in stack.config()["services"]
        return
    file = ("exec", stack.container("datastore"), "cat", "/etc/byre/database/password")
    old = stack.engine.docker(*file)
    stack.compose("run", "--rm", "database-credentials", "database", "--renew")
    stack.compose("restart", "database", "datastore")
    new = stack.engine.docker(*file)
    assert len(new) > 30
    assert new != old
    stack.await_writable()
    shown = stack.compose("logs") + "".join(map(str, stack.containers()))
    shown += "".join(stack.engine.docker("top", one["Id"], "-o", "pid,args")
                     for one in stack.containers() if one["State"]["Running"])  # fmt: skip
    assert old not in shown
    assert new not in shown


def test_a_password_of_the_user_is_taken(stack: Stack) -> None:
    if stack.name not in DATABASES:
        return
    secret = stack.directory / "secret"
    secret.touch(0o600)
    secret.write_text('it\'s \\ "mine" $HOME\n')
    stack.environment["BYRE_DATABASE_PASSWORD_FILE"] = str(secret)
    try:
        stack.start()
        stack.compose("restart", "database", "datastore")
        stack.await_writable()
    finally:
        del stack.environment["BYRE_DATABASE_PASSWORD_FILE"]
    file = ("exec", stack.container("datastore"), "cat", "/etc/byre/database/password")
    assert stack.engine.docker(*file) == secret.read_text().rstrip("\n")


def test_down_keeps_the_objects_and_down_with_volumes_leaves_nothing(stack: Stack) -> None:
    stack.kubectl("create", "configmap", "kept")
    stack.down()
    assert stack.things() == {"container": set(), "network": set(), "volume": stack.volumes}
    stack.start()
    assert stack.kubectl("get", "configmap", "kept", "--output=name") == "configmap/kept\n"
    assert stack.volumes == stack.things()["volume"]
    stack.down("--volumes")
    assert stack.things() == {"container": set(), "network": set(), "volume": set()}
    assert not stack.volumes & stack.engine.names("volume")
