"""Control planes on database servers: several at once, the database away, a lost tail accepted."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.controlplane import ControlPlane, byre
from tests.support.databases import (
    DatabaseServer,
    PostgresqlServer,
    database_on,
    running_postgresql,
)
from tests.support.mariadb import MariadbServer, running_mariadb
from tests.support.running import eventually

pytestmark = [pytest.mark.kube, pytest.mark.timeout(900)]

SHARED = ("ca", "front-proxy-ca", "sa")
"""What all controllers of a cluster have in common below pki/."""

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
REPLICA_SETS = "/apis/apps/v1/namespaces/default/replicasets"
UNHEALTHY_SECONDS = 30.0
"""After so long without liveness a process is restarted."""


def storage(url: str) -> dict[str, Any]:
    return {"type": "kine", "kine": {"dataSource": url}}


@pytest.fixture
def planes(tmp_path: Path) -> Iterator[Callable[..., ControlPlane]]:
    """Make control planes with directories of their own."""
    with ExitStack() as stack:

        def make(name: str, url: str) -> ControlPlane:
            (tmp_path / name).mkdir()
            plane = ControlPlane(tmp_path / name, storage(url))
            stack.enter_context(closing(plane))
            return plane

        yield make


@pytest.fixture
def url(servers: Callable[[str], DatabaseServer]) -> Iterator[str]:
    """A database that does not exist yet."""
    server = servers("postgresql")
    with database_on(server) as name:
        yield server.url(name)


def share_identity(one: ControlPlane, other: ControlPlane) -> None:
    """Do as README says before the first start of a further controller."""
    target = other.data_dir / "pki"
    target.mkdir(parents=True, mode=0o700)
    for name in SHARED:
        for file in (one.data_dir / "pki").glob(f"{name}.*"):
            shutil.copy2(file, target)


def holder(plane: ControlPlane, name: str) -> str:
    return str(plane.get(f"{LEASES}/{name}")["spec"]["holderIdentity"])


def deploy(plane: ControlPlane, name: str) -> None:
    labels = {"app": name}
    containers = [{"name": "x", "image": "x"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    plane.create(DEPLOYMENTS, {"metadata": {"name": name}, "spec": spec})


def has_replica_set(plane: ControlPlane, name: str) -> bool:
    found = plane.get(REPLICA_SETS)["items"]
    return any(item["metadata"]["name"].startswith(f"{name}-") for item in found)


def test_two_controllers_on_one_database(planes: Callable[..., ControlPlane], url: str) -> None:
    one, two = planes("one", url), planes("two", url)
    one.mode = two.mode = ()
    one.start()
    share_identity(one, two)
    two.start()
    path = one.namespace("both") + "/configmaps"
    made = one.create(path, {"metadata": {"name": "a"}, "data": {"from": "one"}})
    # A read that is not from a cache is linearizable across both.
    assert two.get(f"{path}/a") == made
    answer = two.api.delete(f"{path}/a")
    assert answer.status_code == 200
    assert one.api.get(f"{path}/a").status_code == 404
    # A token that one has signed is good at the other: they share the key.
    token = one.kubectl("create", "token", "default", "--namespace=both").strip()
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
    reviewed = two.create(
        "/apis/authentication.k8s.io/v1/tokenreviews", {**review, "spec": {"token": token}}
    )
    assert reviewed["status"]["authenticated"]
    leader = holder(one, "kube-controller-manager")
    assert leader == holder(two, "kube-controller-manager")
    assert holder(two, "kube-scheduler")
    deploy(two, "first")
    eventually(lambda: has_replica_set(one, "first"), "the leader makes a replica set", 60)
    # The first to come leads; when its machine dies the other one takes over.
    for name in ("kube-controller-manager", "kube-scheduler", "kube-apiserver"):
        assert one.process(name)["state"] == "ready"
    one.stop()
    eventually(
        lambda: holder(two, "kube-controller-manager") != leader, "the other one leads", 120
    )
    deploy(two, "second")
    eventually(lambda: has_replica_set(two, "second"), "the new leader works", 60)


@pytest.fixture(params=["postgresql", "mariadb"])
def own_server(request: pytest.FixtureRequest) -> Iterator[PostgresqlServer | MariadbServer]:
    """A database server that the test may stop."""
    with running_postgresql() if request.param == "postgresql" else running_mariadb() as server:
        yield server


def test_a_database_that_is_away_restarts_nothing(
    planes: Callable[..., ControlPlane], own_server: PostgresqlServer | MariadbServer
) -> None:
    plane = planes("one", own_server.url("away"))
    plane.start()
    path = plane.namespace("away") + "/configmaps"
    plane.create(path, {"metadata": {"name": "before"}})
    before = {one["name"]: one["pid"] for one in plane.status()["processes"]}
    own_server.stop(signal.SIGKILL)
    eventually(lambda: not plane.status()["datastore"]["ready"], "the status says so", 60)
    away = time.monotonic()
    refused = plane.api.post(path, json={"metadata": {"name": "meanwhile"}})
    assert refused.status_code >= 500
    # Longer than any process may be without liveness.
    eventually(lambda: time.monotonic() - away > UNHEALTHY_SECONDS * 1.5, "time passes", 120)
    unchanged = {
        one["name"]: one["pid"] for one in plane.status()["processes"] if one["restarts"] == 0
    }
    # The two that lead give up when they cannot renew: kube-apiserver and the shim stay.
    for name in ("datastore", "kube-apiserver"):
        assert unchanged[name] == before[name]
    own_server.start()
    plane.await_writable()
    plane.await_ready()
    assert plane.get(f"{path}/before")["metadata"]["name"] == "before"
    for name in ("datastore", "kube-apiserver"):
        assert plane.process(name)["pid"] == before[name]


def test_another_database_is_refused_until_it_is_adopted(
    planes: Callable[..., ControlPlane], servers: Callable[[str], DatabaseServer]
) -> None:
    server = servers("postgresql")
    with database_on(server) as first, database_on(server) as second:
        plane = planes("one", server.url(first))
        plane.start()
        plane.stop()
        plane.config.write_text(plane.config.read_text().replace(first, second))
        with pytest.raises(
            AssertionError, match=r"ended with 8 instead[\s\S]*belongs to another datastore"
        ):
            plane.start()
        plane.start("--adopt-datastore")


def test_a_lost_tail_is_refused_until_the_loss_is_accepted(
    planes: Callable[..., ControlPlane], servers: Callable[[str], Any]
) -> None:
    server = servers("postgresql")
    with database_on(server) as name:
        plane = planes("one", server.url(name))
        plane.start()
        path = plane.namespace("lost") + "/configmaps"
        plane.create(path, {"metadata": {"name": "a"}})
        plane.stop()
        # What a promoted replica that lagged looks like: the last commits are not there.
        [(change, revision)] = server.execute(
            "SELECT change - 20, revision - 20 FROM byre_head", database=name
        )
        server.execute("DELETE FROM byre_commit WHERE change > %s", (change,), name)
        server.execute("DELETE FROM byre_log WHERE id >> 20 > %s", (revision,), name)
        server.execute("UPDATE byre_head SET change = %s, revision = %s", (change, revision), name)
        with pytest.raises(AssertionError, match=r"byre datastore accept-loss"):
            plane.start()
        done = byre("datastore", "accept-loss", "--yes", *plane.place)
        assert done.status == 0, done.errors
        assert f"revision {revision}" in done.output
        assert "accepted: the revision went from" in done.output
        plane.start()
        plane.await_writable()
        version = plane.get("/api/v1/namespaces")["metadata"]["resourceVersion"]
        assert int(version) > 10**9


def uid_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Uid:")).split()[1])


def way_to_the_interpreter(place: Path) -> list[str]:
    """Return a command whose argument, run by root, finds Python where everybody may reach it.

    A checkout or a Python below a home directory is closed to others: in a mount namespace of
    the command's own an open directory is put over the closed one.
    """
    interpreter = Path(sys.executable).resolve()
    ways = [*reversed(interpreter.parents), interpreter]
    closed = [way for way in ways if way.is_dir() and not way.stat().st_mode & 0o001]
    if os.geteuid() != 0 or not closed:
        return []
    below = ways[ways.index(closed[0]) + 1]
    script = """
        mkdir "$0/kept" && mount --bind "$2" "$0/kept" && mount -t tmpfs -o mode=711 tmpfs "$1" &&
        mkdir "$2" && mount --bind "$0/kept" "$2" && shift 2 && exec "$@"
    """
    return ["unshare", "--mount", "sh", "-c", script, *map(str, (place, closed[0], below))]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_shim_runs_as_the_user_that_was_chosen_by_root(kind: str, url: str) -> None:
    # pytest's own directories are closed to other users.
    with tempfile.TemporaryDirectory(prefix="byre-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        plane = ControlPlane(directory, {"type": "kine"} if kind == "sqlite" else storage(url))
        plane.prefix = way_to_the_interpreter(directory)
        chosen = yaml.safe_load(plane.config.read_text())
        chosen["spec"]["installConfig"] = {"users": {"kineUser": "nobody"}}
        plane.config.write_text(yaml.safe_dump(chosen))
        with closing(plane):
            plane.start()
            wanted = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
            assert uid_of(plane.process("datastore")["pid"]) == wanted
            assert uid_of(plane.process("kube-apiserver")["pid"]) == os.geteuid()
            plane.await_writable()
            pki = (plane.data_dir / "pki").stat()
            assert (pki.st_mode & 0o777, pki.st_uid) == (0o700, os.geteuid())
