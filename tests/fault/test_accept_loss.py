"""A database that was restored from a backup: refused, until somebody accepts the loss."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from datastore.etcdpb import rpc_pb2, rpc_pb2_grpc
from tests.support.running import Listen, Server

JUMP = 10**9


class Place:
    """A store in a file, what was served of it, and the commands for both."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "state.db"
        self.position = directory / "position.json"
        self.listen = Listen.unix(directory / "grpc.sock")
        self.source = (f"--datastore=sqlite://{self.file}", f"--position-file={self.position}")

    def server(self) -> Server:
        """Describe a server; it is not started."""
        command = (sys.executable, "-m", "datastore", "serve", *self.source)
        argv = (*command, f"--listen-client-urls={self.listen.url}")
        return Server("shim", argv, self.listen.target, "", self.directory)

    def accept(self, *more: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command."""
        return subprocess.run(
            [sys.executable, "-m", "datastore", "accept-loss", *self.source, *more],
            capture_output=True, text=True, input=answer, timeout=60, check=False,
        )  # fmt: skip

    def copy(self, target: Path) -> None:
        """Back up or restore."""
        for name in ("state.db", "state.db-wal"):
            (target / name).unlink(missing_ok=True)
        source = self.directory if target != self.directory else self.directory / "backup"
        for file in source.glob("state.db*"):
            if "lock" not in file.name and "shm" not in file.name:
                shutil.copy2(file, target)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A store that has been restored: `lost` is gone, and was served."""
    made = Place(tmp_path)
    (tmp_path / "backup").mkdir()
    write(made, b"kept")
    made.copy(tmp_path / "backup")
    write(made, b"lost")
    made.copy(tmp_path)
    return made


def write(place: Place, key: bytes) -> None:
    with closing(place.server()) as server:
        server.start()
        with grpc.insecure_channel(place.listen.target) as channel:
            put = rpc_pb2.PutRequest(key=key, value=b"1")
            rpc_pb2_grpc.KVStub(channel).Put(put, timeout=10)
        assert server.stop() == 0


def test_a_restored_store_is_refused_with_the_way_out(place: Place) -> None:
    with closing(place.server()) as server, pytest.raises(AssertionError, match="ended with 3"):
        server.start()
    log = (place.directory / "shim.log").read_text()
    assert "has lost commits that this server has served" in log
    assert "accept-loss" in log
    assert "Traceback" not in log


def test_nothing_is_changed_without_a_yes(place: Place) -> None:
    done = place.accept(answer="n\n")
    assert done.returncode == 1
    assert "revision" in done.stdout
    with closing(place.server()) as server, pytest.raises(AssertionError, match="ended with 3"):
        server.start()


def test_an_accepted_loss_jumps_the_revision_and_compacts(place: Place) -> None:
    done = place.accept("--yes")
    assert done.returncode == 0, done.stderr
    assert "accepted: the revision went from 2 to" in done.stdout
    with closing(place.server()) as server:
        server.start()
        with grpc.insecure_channel(place.listen.target) as channel:
            stub = rpc_pb2_grpc.KVStub(channel)
            found = stub.Range(rpc_pb2.RangeRequest(key=b"k", range_end=b"m"), timeout=10)
            assert [kv.key for kv in found.kvs] == [b"kept"]
            assert found.header.revision > JUMP
            with pytest.raises(grpc.RpcError, match="has been compacted"):
                stub.Range(rpc_pb2.RangeRequest(key=b"k", revision=3), timeout=10)
            put = stub.Put(rpc_pb2.PutRequest(key=b"after", value=b"1"), timeout=10)
            assert put.header.revision == found.header.revision + 1
        assert server.stop() == 0


def test_a_store_that_lost_nothing_says_so(tmp_path: Path) -> None:
    made = Place(tmp_path)
    write(made, b"kept")
    done = made.accept("--yes")
    assert done.returncode == 0
    assert "nothing that is recorded here was missing" in done.stdout


def test_a_store_that_is_served_is_left_alone(tmp_path: Path) -> None:
    made = Place(tmp_path)
    with closing(made.server()) as server:
        server.start()
        done = made.accept("--yes")
    assert done.returncode == 3
    assert str(made.file) in done.stderr
    assert "Traceback" not in done.stderr
    assert made.position.exists()
