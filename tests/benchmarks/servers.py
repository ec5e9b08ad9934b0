"""Compare three servers on one database with one: the same clients, shared by them or not.

    python tests/benchmarks/servers.py --loadgen PATH [--datastore postgresql|mariadb]
        [--workload k8s-update] [--clients 48] [--rounds 3] [--duration 3s]

Each round runs the clients on the one server, then a third of them on each of three, which stand
on the same database server with a database of their own. Prints writes/s, p99 and errors, and the
ratio of the sums.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks import peers  # noqa: E402 - a script, run from anywhere
from tests.support.running import Server, free_port  # noqa: E402

SERVERS: Final = 3
KEYS: Final = 1_000


class Sum(NamedTuple):
    """What the clients of all servers of a side did together."""

    rate: float
    p99: float
    failures: int


def main() -> None:
    """Run the rounds and print them."""
    options = _parse()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, ExitStack() as stack:
        data = Path(folder)
        database = peers.start_database(options.datastore, data)
        stack.callback(database.close)
        sides = {
            number: [_start(stack, database.url(f"of{number}"), data) for _ in range(number)]
            for number in (1, SERVERS)
        }
        found: dict[int, list[Sum]] = {number: [] for number in sides}
        for at in range(options.rounds):
            for number, servers in sides.items():
                found[number].append(_load(options, servers, data, at))
                print(f"round {at}, servers: {number}: {found[number][-1]}", flush=True)
    rates = {number: median(each.rate for each in sums) for number, sums in found.items()}
    print(f"{SERVERS} servers write {rates[SERVERS] / rates[1]:.2f}x of what one does")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loadgen", required=True, type=Path, help="the load generator's binary")
    parser.add_argument("--datastore", default="postgresql", choices=("postgresql", "mariadb"))
    parser.add_argument("--workload", default="k8s-update")
    parser.add_argument("--clients", default=48, type=int, help="of all servers together")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--duration", default="3s")
    return parser.parse_args()


def _start(stack: ExitStack, url: str, data: Path) -> Server:
    address = f"127.0.0.1:{free_port()}"
    argv = [sys.executable, *peers.byre_arguments(url, address)]
    name = f"byre-{address.rpartition(':')[2]}"
    server = Server(name, argv, address, f"http://{address}", data, cwd=ROOT)
    stack.callback(server.close)
    server.start()
    return server


def _load(options: argparse.Namespace, servers: Sequence[Server], data: Path, at: int) -> Sum:
    """Load all servers at once, each with keys of its own: their number is in their names."""
    running = []
    for number, server in enumerate(servers):
        output = data / f"{server.name}-{at}.json"
        argv = [
            *(str(options.loadgen), "run", "--target", f"byre={server.target}"),
            *("--workload", options.workload, "--rounds", "1", "--duration", options.duration),
            *("--clients", str(options.clients // len(servers)), "--conns", "8"),
            *("--keys", str(KEYS + number), "--json", str(output)),
        ]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        running.append((process, output))
    for process, _ in running:
        process.wait()
    results: list[dict[str, Any]] = [
        result for _, output in running for result in json.loads(output.read_text())
    ]
    return Sum(
        sum(result["ops_per_sec"] for result in results),
        max(result["p99_ms"] for result in results),
        sum(_failures(result) for result in results),
    )


def _failures(result: dict[str, Any]) -> int:
    return sum(sum((result.get(kind) or {}).values()) for kind in ("errors", "violations"))


if __name__ == "__main__":
    main()
