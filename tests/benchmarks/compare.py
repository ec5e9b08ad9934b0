"""Measure byre beside kine and etcd with the load generator, all in one run.

    python tests/benchmarks/compare.py --loadgen PATH [--datastore sqlite|postgresql|mariadb]

Starts one of each on loopback with fresh data on a real disk, runs interleaved rounds and prints
the load generator's table; ratios are against kine on the same database. Programs and databases
are those of the tests (`make servers databases`).
"""

from __future__ import annotations

import argparse
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.databases import PostgresqlServer  # noqa: E402 - a script, run from anywhere
from tests.support.mariadb import MariadbServer  # noqa: E402
from tests.support.servers import Binaries  # noqa: E402

SMALL = "put-new,put-over,k8s-create,k8s-update,k8s-delete,get,mixed"
LARGE = "list-page,count"
_SQLITE = "_journal_mode=WAL&_busy_timeout=30000&_synchronous=NORMAL&_txlock=immediate"
_CONNECTIONS = "150"
"""kine opens one a request under way; the databases' own defaults would refuse some."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(argv: Sequence[str], port: int, log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, cwd=ROOT)
    try:
        _await_port(port, process, log)
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"a server does not come up:\n{log.read_text()[-2000:]}")


@contextmanager
def _database(kind: str, data: Path) -> Iterator[tuple[str, str]]:
    """Run the database server, on disk; give kine's data source and byre's."""
    if kind == "sqlite":
        kine = f"sqlite://{data}/kine/state.db?{_SQLITE}&_stmt_cache_size=20&cache=shared"
        yield kine, f"sqlite:///{data}/byre/state.db"
        return
    data.chmod(0o711)  # the database runs as another user
    settings = {"max_connections" if kind == "postgresql" else "max-connections": _CONNECTIONS}
    server = (
        PostgresqlServer(settings, disk=data)
        if kind == "postgresql"
        else MariadbServer(settings, disk=data)
    )
    try:
        server.start()
        kine = f"postgres://byre@127.0.0.1:{server.port}/kine?sslmode=disable"
        if kind == "mariadb":
            kine = f"mysql://byre@tcp(127.0.0.1:{server.port})/kine"
        yield kine, server.url("byre")
    finally:
        server.close()


def _commands(
    binaries: Binaries, data: Path, sources: tuple[str, str], ports: dict[str, int]
) -> dict[str, list[str]]:
    etcd, peer = f"http://127.0.0.1:{ports['etcd']}", f"http://127.0.0.1:{_free_port()}"
    kine, byre = sources
    return {
        "kine": [
            str(binaries.kine),
            *shlex.split(
                f"--listen-address 127.0.0.1:{ports['kine']} --metrics-bind-address 0 --endpoint"
            ),
            kine,
        ],
        "etcd": shlex.split(
            f"{binaries.etcd} --name peer --data-dir {data}/etcd --listen-client-urls {etcd} "
            f"--advertise-client-urls {etcd} --listen-peer-urls {peer} "
            f"--initial-advertise-peer-urls {peer} --initial-cluster peer={peer} "
            "--quota-backend-bytes 8589934592 --watch-progress-notify-interval 5s "
            "--log-level warn"
        ),
        "byre": [
            sys.executable,
            *shlex.split(
                f"-m datastore serve --datastore {byre} "
                f"--listen-client-urls http://127.0.0.1:{ports['byre']} "
                "--watch-progress-notify-interval 5s --log-level error"
            ),
        ],
    }


def main() -> None:
    """Start all, run the load generator twice (small keyspace, 100,000 keys)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loadgen", required=True, type=Path, help="the load generator's binary")
    parser.add_argument(
        "--datastore", default="sqlite", choices=("sqlite", "postgresql", "mariadb")
    )
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--duration", default="3s")
    parser.add_argument("--clients", default="1,16,64")
    parser.add_argument("--workload", default=SMALL)
    parser.add_argument("--large", default=LARGE, help="workloads over 100,000 keys; '' for none")
    parser.add_argument("--churn", default="60s", help="how long the workload churn takes")
    parser.add_argument("--json", type=Path, default=None, help="folder for the raw results")
    options = parser.parse_args()
    binaries = Binaries()
    names = ("kine", "etcd", "byre")
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        sources = stack.enter_context(_database(options.datastore, data))
        ports = {name: _free_port() for name in names}
        targets: list[str] = []
        for name, argv in _commands(binaries, data, sources, ports).items():
            (data / name).mkdir(exist_ok=True, mode=0o700)
            pid = stack.enter_context(_running(argv, ports[name], data / f"{name}.log"))
            where = f"{name}=127.0.0.1:{ports[name]},pid={pid},dir={data / name}"
            targets += ["--target", where]
        common = [str(options.loadgen), "run", *targets, "--base", "kine", "--conns", "8"]
        common += ["--rounds", str(options.rounds), "--duration", options.duration]
        common += ["--churn", options.churn]
        runs = []
        if options.workload:
            runs.append(("small", ["--workload", options.workload, "--clients", options.clients]))
        if options.large:
            large = ["--workload", options.large, "--clients", "1,16", "--keys", "100000"]
            runs.append(("large", large))
        status = 0
        for name, arguments in runs:
            result = ["--json", str(options.json / f"{name}.json")] if options.json else []
            status |= subprocess.run([*common, *arguments, *result], check=False).returncode
    raise SystemExit(status)


if __name__ == "__main__":
    main()
