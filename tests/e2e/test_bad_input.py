"""Bad input: a clear message, the documented exit code, nothing left behind."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from datastore.pki import Authority, Leaf
from supervisor.orphans import find_orphans
from tests.e2e.controlplane import Finished, byre
from tests.support.etcd import etcd
from tests.support.running import Server, free_port
from tests.support.servers import Binaries
from tests.support.shim import shim

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]


@pytest.fixture
def refuse(tmp_path: Path) -> Iterator[Any]:
    """Run a controller that must not come up; return what it says."""
    data_dir = tmp_path / "data"

    def run(text: str | dict[str, Any], **environment: str) -> Finished:
        config = tmp_path / "byre.yaml"
        config.write_text(text if isinstance(text, str) else yaml.safe_dump({"spec": text}))
        place = ("--config", str(config), "--data-dir", str(data_dir))
        done = byre("controller", *place, environment=environment)
        assert "Traceback" not in done.errors
        assert done.errors.splitlines()[-1]
        return done

    yield run
    assert find_orphans(str(data_dir), tmp_path) == []
    byre("reset", "--yes", "--data-dir", str(data_dir))


def api() -> dict[str, Any]:
    return {"port": free_port()}


def test_broken_yaml(refuse: Any) -> None:
    done = refuse("spec: {api: [")
    assert done.status == 3
    assert "line 1" in done.errors


def test_unknown_keys(refuse: Any) -> None:
    done = refuse("spec: {storage: {tpye: etcd}}")
    assert done.status == 3
    assert "spec.storage.tpye" in done.errors
    assert "did you mean type?" in done.errors


@pytest.mark.parametrize(
    "source", ["oracle://scott:tiger@db/x", "not a url", "sqlite:///dir/", "postgres://u:tiger@"]
)
def test_an_unusable_data_source(refuse: Any, source: str, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    source = source.replace("/dir", str(tmp_path / "dir"))
    done = refuse({"storage": {"type": "kine", "kine": {"dataSource": source}}, "api": api()})
    assert done.status in {3, 4, 6}
    assert "tiger" not in done.errors


def test_a_file_in_the_place_of_the_data_directory(refuse: Any, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    done = refuse({"api": api()})
    assert done.status == 2
    assert f"{tmp_path / 'data'}' is a file" in done.errors
    (tmp_path / "data").unlink()


def test_an_unwritable_data_directory() -> None:
    # Not even root can make a directory there.
    done = byre("controller", "--data-dir", "/proc/byre")
    assert done.status == 4
    assert "cannot use /proc/byre" in done.errors
    assert "Traceback" not in done.errors


def test_a_port_in_use(refuse: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = refuse({"api": {"port": port}})
    assert done.status == 4
    assert f"127.0.0.1:{port}: address already in use by" in done.errors
    assert f"(pid {os.getpid()})" in done.errors


def test_a_missing_binary_and_a_port_in_use_are_told_at_once(refuse: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = refuse({"api": {"port": port, "binary": "/does/not/exist"}})
    assert done.status == 4
    assert "/does/not/exist does not exist" in done.errors
    assert "address already in use" in done.errors


def test_a_binary_of_the_wrong_version(refuse: Any, tmp_path: Path) -> None:
    old = tmp_path / "kube-apiserver"
    old.write_text("#!/bin/sh\necho Kubernetes v1.20.0\n")
    old.chmod(0o755)
    done = refuse({"api": {**api(), "binary": str(old)}})
    assert done.status == 4
    assert "is version 1.20.0, needed is 1.37.2" in done.errors


def test_a_store_whose_certificate_does_not_match(
    refuse: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, binaries: Binaries
) -> None:
    other = Authority.ensure(tmp_path / "other", "ca", "somebody-else")
    mine = Authority.ensure(tmp_path / "mine", "ca", "mine")
    leaf = Leaf("etcd", "etcd", addresses=("127.0.0.1",), server=True, client=True)
    server, client = other.issue(leaf), mine.issue(leaf)
    url = f"https://127.0.0.1:{free_port()}"
    flags = [
        f"--cert-file={server.cert}",
        f"--key-file={server.key}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
    ]
    with closing(_tls_etcd(binaries, tmp_path_factory.mktemp("etcd"), flags, other.cert)):
        cluster = {
            "endpoints": [url],
            "caFile": str(mine.cert),
            "clientCertFile": str(client.cert),
            "clientKeyFile": str(client.key),
        }
        done = refuse(
            {
                "api": api(),
                "storage": {"type": "etcd", "etcd": {"externalCluster": cluster}},
            }
        )
    assert done.status == 6
    assert "datastore did not start" in done.errors
    assert "certificate" in done.errors.lower()


def _tls_etcd(binaries: Binaries, directory: Path, flags: list[str], ca: Path) -> Server:
    described = etcd(binaries.etcd, directory, flags)
    url = next(flag for flag in flags if flag.startswith("--listen-client-urls="))
    described.target = url.partition("//")[2]
    described.credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    described.start()
    return described


def test_a_certificate_and_a_key_that_do_not_belong_together(refuse: Any, tmp_path: Path) -> None:
    ca = Authority.ensure(tmp_path / "ca")
    one, two = (ca.issue(Leaf(name, name, client=True)) for name in ("one", "two"))
    cluster = {
        "endpoints": ["https://127.0.0.1:1"],
        "caFile": str(ca.cert),
        "clientCertFile": str(one.cert),
        "clientKeyFile": str(two.key),
    }
    done = refuse(
        {
            "api": api(),
            "storage": {"type": "etcd", "etcd": {"externalCluster": cluster}},
        }
    )
    assert done.status in {3, 4}
    assert str(two.key) in done.errors or str(one.cert) in done.errors


def test_a_second_server_on_the_same_database_file(
    refuse: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("first")
    with closing(shim(directory, "sqlite")) as first:
        first.start()
        file = directory / "shim.db"
        source = {"dataSource": f"sqlite:///{file}"}
        done = refuse({"api": api(), "storage": {"type": "kine", "kine": source}})
    assert done.status == 6
    assert str(file) in done.errors
    assert "datastore did not start" in done.errors


def test_a_database_that_is_none(refuse: Any, tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    shutil.copy(__file__, file)
    source = {"dataSource": f"sqlite:///{file}"}
    done = refuse({"api": api(), "storage": {"type": "kine", "kine": source}})
    assert done.status == 6
    assert str(file) in done.errors
    assert file.read_bytes() == Path(__file__).read_bytes()


def kine(source: str, **more: Any) -> dict[str, Any]:
    return {
        "api": api(),
        "storage": {"type": "kine", "kine": {"dataSource": source, **more}},
    }


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("postgres://u:tiger@127.0.0.1:{port}/d", "is the server running"),
        ("mysql://u:tiger@tcp(127.0.0.1:{port})/d", "is the server running"),
        ("postgres://u:tiger@nowhere.invalid/d", "is the name of the host right"),
        ("mysql://u:tiger@nowhere.invalid/d", "is the name of the host right"),
        ("postgres:///d?host=/nowhere", "is the server running"),
        ("mysql://unix(/nowhere/my.sock)/d", "is the server running"),
    ],
)
def test_a_database_server_that_cannot_be_reached(refuse: Any, source: str, told: str) -> None:
    done = refuse(kine(source.format(port=free_port())))
    assert done.status == 6
    assert told in done.errors
    assert "tiger" not in done.errors


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("postgres://u:tiger@h/d?sslmod=x", "unknown parameter sslmod; did you mean sslmode?"),
        ("mysql://u:tiger@tcp(h:99999)/d", "a port must be a number from 1 to 65535"),
        ("postgres://u:ti%ger@h/d", "a percent sign must be written as %25"),
        ("postgresql://h/d?sslrootcert=ca.crt", "the CA file must be an absolute path"),
    ],
)
def test_a_data_source_with_a_mistake(refuse: Any, source: str, told: str) -> None:
    done = refuse(kine(source))
    assert done.status == 3
    assert told in done.errors
    assert "spec.storage.kine.dataSource" in done.errors
    assert "tiger" not in done.errors


@pytest.mark.parametrize(
    ("more", "status", "told"),
    [
        ({"passwordFile": "missing"}, 3, "the password file {}/missing: no such file"),
        ({"passwordEnv": "NOWHERE"}, 3, "the environment variable NOWHERE is not set"),
        ({"passwordCommand": ["/nowhere"]}, 6, "the password command /nowhere: no such file"),
        ({"caFile": "missing.crt"}, 4, "cannot use {}/missing.crt: no such file"),
    ],
)
def test_what_a_connection_needs_is_missing(
    refuse: Any, more: dict[str, Any], status: int, told: str, tmp_path: Path
) -> None:
    done = refuse(kine(f"postgres://u@127.0.0.1:{free_port()}/d", **more))
    assert done.status == status
    assert told.format(tmp_path) in done.errors


def strict_user(server: Any, name: str) -> None:
    """Make a user with the password `right` and no right to make databases."""
    if server.kind == "mariadb":
        server.execute(f"CREATE USER {name}@'127.0.0.1' IDENTIFIED BY 'right'")
        return
    server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
    rules = server.data / "pg_hba.conf"
    rules.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    server.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_wrong_password_and_a_missing_right(
    refuse: Any, kind: str, servers: Any, tmp_path: Path
) -> None:
    server = servers(kind)
    strict_user(server, "strict")
    source = server.url("missing", user="strict")
    password = tmp_path / "password"
    password.write_text("tiger\n")
    done = refuse(kine(source, passwordFile="password"))
    assert done.status == 6
    assert "correct the password or the user" in done.errors
    assert "tiger" not in done.errors
    password.write_text("right\n")
    done = refuse(kine(source, passwordFile="password"))
    assert done.status == 6
    assert "CREATE DATABASE" in done.errors
    assert "GRANT" in done.errors or "ALTER ROLE" in done.errors
