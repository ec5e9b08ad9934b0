"""Measure byre beside kine and etcd with the load generator, all in one run, and write a report.

    python tests/benchmarks/compare.py --loadgen PATH [--datastore sqlite|postgresql|mariadb]
        [--only NAME,…] [--report FOLDER]

Starts one of each on loopback with fresh data on a real disk, and runs each group of workloads in
interleaved rounds; ratios are against kine on the same database. Programs and databases are those
of the tests (`make servers databases`). With --report the folder gets `report.md` and a plot of
each workload; needs `pip install --group bench`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks import apiserver, peers, report  # noqa: E402 - a script, run from anywhere


class Group(NamedTuple):
    """Workloads that are run together."""

    workloads: str
    clients: str
    more: Sequence[str] = ()


GROUPS: Final = {
    "writes": Group("put-new,put-over,k8s-create,k8s-update,k8s-delete", "1,16,64,256"),
    "gets": Group("get", "1,16,64,256"),
    "mixed": Group("mixed", "1,16,64"),
    "large": Group("list-page,count", "1,16", ("--keys", "100000")),
    "lists": Group("list-all,list-stream,list-old", "1"),
    "watches": Group("watch-fanout,watch-many", "1", ("--watchers", "200")),
    "leases": Group("lease-grant,lease-keepalive", "1,16"),
    "churn": Group("churn", "64"),
}
STARTUP: Final = "startup"
APISERVER: Final = "apiserver"
NAMES: Final = (*GROUPS, STARTUP, APISERVER)


def main() -> None:
    """Start all, run the groups, and write the report where one is wanted."""
    options = _parse()
    results: list[dict[str, Any]] = []
    status = 0
    for name in options.only.split(","):
        # Fresh data for each, so that no workload finds what another one left.
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            output = Path(folder) / "results.json"
            status |= _measure(name, options, Path(folder), output)
            results += json.loads(output.read_text())
        if options.report:
            report.write(options.report, options.datastore, results)
    raise SystemExit(status)


def _measure(name: str, options: argparse.Namespace, data: Path, output: Path) -> int:
    """Measure a group, leave its results in `output`, and return 0 if all went well."""
    if name == STARTUP:
        with peers.prepared(options.datastore, data, warm=options.warm) as commands:
            return _start(options, commands, output)
    with peers.running(options.datastore, data, warm=options.warm) as found:
        if name == APISERVER:
            output.write_text(json.dumps(apiserver.measure(found, data, options.rounds)))
            return 0
        return _run(options, GROUPS[name], found, output)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loadgen", required=True, type=Path, help="the load generator's binary")
    parser.add_argument("--datastore", default="sqlite", choices=peers.DATASTORES)
    parser.add_argument("--only", default=",".join(NAMES), help=f"of {','.join(NAMES)}")
    parser.add_argument("--workload", help="these of the group's workloads only")
    parser.add_argument("--clients", help="instead of the group's")
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--duration", default="3s", help="of each run")
    parser.add_argument("--churn", default="60s", help="how long the workload churn takes")
    parser.add_argument("--keys", default=100_000, type=int, help="in stores that are started")
    parser.add_argument("--warm", action="store_true", help="kine keeps its database connections")
    parser.add_argument("--report", type=Path, help="folder for report.md and the plots")
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - set(NAMES):
        parser.error(f"--only: no group {', '.join(sorted(unknown))}")
    return options


def _start(
    options: argparse.Namespace, commands: Mapping[str, peers.Command], output: Path
) -> int:
    servers = [
        part
        for name, (address, argv) in commands.items()
        for part in ("--target", f"{name}={address}", "--exec", f"{name}={shlex.join(argv)}")
    ]
    argv = [
        *(str(options.loadgen), "startup", *servers, "--keys", str(options.keys)),
        *("--rounds", str(options.rounds), "--json", str(output)),
    ]
    return subprocess.run(argv, check=False, cwd=ROOT).returncode


def _run(
    options: argparse.Namespace, group: Group, found: Mapping[str, peers.Peer], output: Path
) -> int:
    targets = [
        part
        for name, (address, pid, directory) in found.items()
        for part in ("--target", f"{name}={address},pid={pid},dir={directory}")
    ]
    argv = [
        *(str(options.loadgen), "run", *targets, "--base", "kine", "--conns", "8"),
        *("--rounds", str(options.rounds), "--duration", options.duration),
        *("--churn", options.churn, "--json", str(output)),
        *("--workload", options.workload or group.workloads),
        *("--clients", options.clients or group.clients),
        *group.more,
    ]
    return subprocess.run(argv, check=False).returncode


if __name__ == "__main__":
    main()
