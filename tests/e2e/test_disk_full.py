"""A control plane whose store is on a disk that gets full, and is given space again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import QUICK_ARGUMENTS
from tests.e2e.controlplane import ControlPlane
from tests.support.running import eventually

pytestmark = [pytest.mark.kube, pytest.mark.timeout(900)]

DISK_BYTES = 64 << 20
OBJECT = {"data": {"k": "x" * 200_000}}
NO_SPACE = "etcdserver: mvcc: database space exceeded"


class SmallDisk:
    """A file system of its own for the store, which only byre and its children see."""

    def __init__(self, place: Path, plane: ControlPlane) -> None:
        place.mkdir()
        self._place = place
        self._plane = plane
        mount = f'mount -t tmpfs -o size={DISK_BYTES},mode=700 tmpfs "$0" && exec "$@"'
        # Whoever is not root may mount in a user namespace.
        user = () if os.geteuid() == 0 else ("--user", "--map-current-user", "--keep-caps")
        plane.prefix = ("unshare", *user, "--mount", "sh", "-c", mount, str(place))

    @property
    def _ballast(self) -> Path:
        return Path(f"/proc/{self._plane.pid}/root{self._place}/ballast")

    def fill(self) -> None:
        """Leave not a byte."""
        with self._ballast.open("ab", buffering=0) as ballast:
            size = 1 << 20
            while size:
                try:
                    written = ballast.write(bytes(size))
                except OSError:
                    written = 0
                if written < size:
                    size //= 2

    def make_room(self) -> None:
        """Take away what `fill` wrote."""
        self._ballast.unlink()


@pytest.fixture
def plane(make_plane: Callable[..., ControlPlane], tmp_path: Path) -> ControlPlane:
    source = {"dataSource": f"sqlite:///{tmp_path}/disk/state.db"}
    return make_plane({"type": "kine", "kine": source}, extraArgs=QUICK_ARGUMENTS)


@pytest.fixture
def disk(plane: ControlPlane, tmp_path: Path) -> SmallDisk:
    made = SmallDisk(tmp_path / "disk", plane)
    plane.start()
    return made


def names(plane: ControlPlane, path: str) -> set[str]:
    return {
        item["metadata"]["name"]
        for item in plane.get(path)["items"]
        if item["metadata"]["name"] != "kube-root-ca.crt"
    }


def create_until_refused(plane: ControlPlane, path: str, first: int = 0) -> set[str]:
    """Create objects until one is refused for lack of space; return what was accepted."""
    accepted: set[str] = set()

    def is_refused() -> bool:
        name = f"m-{first + len(accepted)}"
        answer = plane.api.post(path, json={"metadata": {"name": name}, **OBJECT})
        if answer.status_code == 201:
            accepted.add(name)
            return False
        assert NO_SPACE in answer.text
        return True

    eventually(is_refused, "a write is refused", 120)
    return accepted


def test_a_full_disk_refuses_writes_and_loses_nothing(
    plane: ControlPlane, disk: SmallDisk
) -> None:
    path = plane.namespace("full") + "/configmaps"
    plane.create(path, {"metadata": {"name": "before"}})
    pids = {name: plane.process(name)["pid"] for name in ("datastore", "kube-apiserver")}
    disk.fill()
    accepted = create_until_refused(plane, path) | {"before"}

    assert names(plane, path) == accepted
    assert plane.api.get("/readyz").text == "ok"
    assert {name: plane.process(name)["pid"] for name in pids} == pids

    disk.make_room()
    plane.await_writable()
    plane.create(path, {"metadata": {"name": "after"}})
    assert names(plane, path) == accepted | {"after"}
    # kube-controller-manager ends when it cannot write at its start; byre starts it again.
    plane.await_ready()


def test_deleting_objects_makes_room_on_a_full_disk(plane: ControlPlane, disk: SmallDisk) -> None:
    path = plane.namespace("full") + "/configmaps"
    accepted = create_until_refused(plane, path)
    assert len(accepted) > 50
    for name in accepted:
        assert plane.api.delete(f"{path}/{name}").status_code == 200
    # When the next compactions of kube-apiserver have let go of them.
    plane.await_writable()
    assert create_until_refused(plane, path, len(accepted))


def test_a_store_killed_on_a_full_disk_comes_back_with_the_space(
    plane: ControlPlane, disk: SmallDisk
) -> None:
    path = plane.namespace("full") + "/configmaps"
    disk.fill()
    accepted = create_until_refused(plane, path)
    os.kill(plane.process("datastore")["pid"], signal.SIGKILL)
    disk.make_room()
    plane.await_writable()
    assert names(plane, path) == accepted
