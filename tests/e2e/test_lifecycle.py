"""How a control plane comes and goes: nothing is left running, no port stays taken."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from supervisor.orphans import Orphan, find_orphans
from supervisor.plan import Listener
from supervisor.preflight import check_ports
from tests.e2e.controlplane import READY_SECONDS, ControlPlane, byre
from tests.support.running import eventually, free_port
from tests.support.servers import Binaries

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]


def left_behind(plane: ControlPlane) -> Iterator[Orphan]:
    for orphan in find_orphans(str(plane.data_dir), Path("/nonexistent")):
        with orphan:
            yield orphan


def ports_in_use(plane: ControlPlane) -> list[str]:
    spec = yaml.safe_load(plane.config.read_text())["spec"]
    ports = [
        spec["api"]["port"],
        spec["controllerManager"]["extraArgs"]["secure-port"],
        spec["scheduler"]["extraArgs"]["secure-port"],
    ]
    return check_ports([Listener("x", "127.0.0.1", port) for port in ports])


def assert_nothing_is_left(plane: ControlPlane) -> None:
    assert [orphan.component for orphan in left_behind(plane)] == []
    assert ports_in_use(plane) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_everything_in_reverse(
    make_plane: Callable[..., ControlPlane], number: signal.Signals
) -> None:
    plane = make_plane({"type": "kine"})
    plane.start()
    assert {orphan.component for orphan in left_behind(plane)} == {
        "datastore",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    }
    assert plane.signal(number) == 0
    stopped = [line.split()[3] for line in plane.lines if line.endswith("has stopped\n")]
    assert stopped == ["kube-scheduler", "kube-controller-manager", "kube-apiserver", "datastore"]
    assert_nothing_is_left(plane)


def test_a_signal_while_starting_stops_everything(
    make_plane: Callable[..., ControlPlane],
) -> None:
    plane = make_plane({"type": "kine"})
    lines = plane.launch()
    for line in iter(lambda: lines.get(timeout=READY_SECONDS), None):
        if "kube-apiserver is starting" in line:
            break
    assert plane.stop() == 0
    assert_nothing_is_left(plane)


def test_a_failed_start_leaves_nothing_and_shows_the_last_lines(
    make_plane: Callable[..., ControlPlane],
) -> None:
    plane = make_plane({"type": "kine"}, extraArgs={"no-such-flag": "1"})
    with pytest.raises(AssertionError, match="ended with 6 instead"):
        plane.start()
    assert "byre: kube-apiserver did not start: exit status 1\n" in plane.lines
    assert "  | Error: unknown flag: --no-such-flag\n" in plane.lines
    assert_nothing_is_left(plane)


def test_after_a_sigkill_of_byre_the_next_start_cleans_up(
    make_plane: Callable[..., ControlPlane],
) -> None:
    plane = make_plane({"type": "kine"})
    plane.start()
    path = plane.namespace("before") + "/configmaps"
    plane.create(path, {"metadata": {"name": "a"}})
    plane.signal(signal.SIGKILL)
    assert list(left_behind(plane))
    plane.start()
    assert plane.get(f"{path}/a")["metadata"]["name"] == "a"
    assert plane.stop() == 0
    assert_nothing_is_left(plane)


def test_a_component_that_dies_comes_back(make_plane: Callable[..., ControlPlane]) -> None:
    plane = make_plane({"type": "kine"})
    plane.start()
    os.kill(plane.process("kube-scheduler")["pid"], signal.SIGKILL)

    def is_back() -> bool:
        scheduler = plane.process("kube-scheduler")
        return scheduler["state"] == "ready" and scheduler["restarts"] == 1

    eventually(is_back, "kube-scheduler is back", 120)
    assert plane.process("kube-scheduler")["last_exit"]["reason"] == "killed by SIGKILL"


def test_a_second_byre_on_the_same_data_directory_is_refused(
    make_plane: Callable[..., ControlPlane],
) -> None:
    plane = make_plane({"type": "kine"})
    plane.start()
    second = byre("controller", *plane.place)
    assert second.status == 4
    assert f"another byre runs on {plane.data_dir} (pid {plane.pid})" in second.errors
    plane.await_ready()
    refused = byre("reset", "--yes", *plane.place)
    assert (refused.status, "stop it" in refused.errors) == (4, True)


def test_another_store_is_refused_until_it_is_adopted(
    make_plane: Callable[..., ControlPlane],
) -> None:
    plane = make_plane({"type": "kine"})
    plane.start()
    plane.stop()
    for file in (plane.data_dir / "db").iterdir():
        file.unlink()
    with pytest.raises(
        AssertionError, match=r"ended with 8 instead[\s\S]*belongs to another datastore"
    ):
        plane.start()
    assert_nothing_is_left(plane)
    plane.start("--adopt-datastore")
    plane.await_ready()


def test_a_store_that_has_lost_its_data_stops_everything(
    make_plane: Callable[..., ControlPlane], binaries: Binaries
) -> None:
    urls = {
        "listen-client-urls": f"https://127.0.0.1:{free_port()}",
        "listen-peer-urls": f"https://127.0.0.1:{free_port()}",
    }
    etcd = {"binary": str(binaries.etcd), "extraArgs": urls}
    plane = make_plane({"type": "etcd", "etcd": etcd})
    lines = plane.launch()
    while (line := lines.get(timeout=READY_SECONDS)) is not None:
        if line.startswith("control plane ready"):
            break
    pid = plane.process("etcd")["pid"]
    shutil.rmtree(plane.data_dir / "etcd")
    os.kill(pid, signal.SIGKILL)
    for line in iter(lambda: lines.get(timeout=READY_SECONDS), None):
        if line.startswith("byre: the datastore has lost data"):
            break
    else:
        pytest.fail("byre went on")
    assert plane.wait() == 8
    assert_nothing_is_left(plane)
