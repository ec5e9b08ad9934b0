"""What is checked before anything starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from datastore.paths import Paths
from supervisor.plan import Listener
from supervisor.preflight import DataDirLock, check_directories, check_ports, find_holder


def test_a_data_directory_has_one_holder(tmp_path: Path) -> None:
    with DataDirLock(tmp_path) as first, DataDirLock(tmp_path) as second:
        assert first.take() is None
        assert second.take() == f"pid {os.getpid()}"
        first.release()
        assert second.take() is None


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    program = (
        "import sys, signal\nfrom pathlib import Path\n"
        "from supervisor.preflight import DataDirLock\n"
        "lock = DataDirLock(Path(sys.argv[1]))\n"
        "print(lock.take(), flush=True)\nsignal.pause()\n"
    )
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"None\n"
        with DataDirLock(tmp_path) as lock:
            assert lock.take() == f"pid {holder.pid}"
            holder.kill()
            holder.wait()
            assert lock.take() is None


def test_a_port_in_use_is_reported_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (problem,) = check_ports([Listener("kube-apiserver", "127.0.0.1", port)])
    assert problem.startswith(f"kube-apiserver cannot listen on 127.0.0.1:{port}: address already")
    assert f"(pid {os.getpid()})" in problem


def test_every_port_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        busy = [Listener("a", "127.0.0.1", server.getsockname()[1]) for server in (one, two)]
        assert len(check_ports(busy)) == 2


def test_free_ports_are_no_problem() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert check_ports([Listener("a", "127.0.0.1", port)]) == []
    assert find_holder(port) is None


def test_an_address_of_another_machine_is_a_problem() -> None:
    (problem,) = check_ports([Listener("etcd", "192.0.2.1", 2379)])
    assert "cannot assign requested address" in problem


@pytest.mark.parametrize("name", ["data", "run"])
def test_a_file_in_the_place_of_a_directory_is_a_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    paths = Paths(tmp_path / "data", tmp_path / "run", tmp_path, tmp_path / "byre.yaml")
    (problem,) = check_directories(paths)
    assert str(tmp_path / name) in problem


def test_a_passage_for_the_datastore_s_user_stays_open(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "data", tmp_path / "run", tmp_path, tmp_path / "byre.yaml")
    assert check_directories(paths) == []
    assert paths.data_dir.stat().st_mode & 0o777 == 0o700
    paths.data_dir.chmod(0o711)
    paths.run_dir.chmod(0o755)
    assert check_directories(paths) == []
    assert paths.data_dir.stat().st_mode & 0o777 == 0o711
    assert paths.run_dir.stat().st_mode & 0o777 == 0o700
