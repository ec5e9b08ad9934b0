"""Which RPCs the cases of contract/api have called on which server, and the table made of it.

`make support-table` runs them all, notes what each has called and how it ended, and writes
SUPPORT.md. Nothing is noted in other runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Final

import pytest

from datastore.etcdpb import election_pb2, health_pb2, lock_pb2, rpc_pb2
from tests.support.client import CALLED

VARIABLE: Final = "BYRE_TEST_SUPPORT"
"""Where to write what was noted; each process of a run adds its name to it."""
TABLE: Final = Path(__file__).parents[2] / "SUPPORT.md"
SERVERS: Final = {
    "etcd": "etcd 3.7",
    "memory": "memory",
    "sqlite": "SQLite",
    "postgresql": "PostgreSQL",
    "mariadb": "MariaDB",
}
NONE: Final = "none"
Results = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Server, path of an RPC, outcome: number of cases."""

_noted: dict[str, dict[str, Counter[str]]] = {}


def rpcs() -> list[str]:
    """Return the path of every RPC of etcd's API."""
    return [
        f"/{service.full_name}/{method.name}"
        for file in (rpc_pb2, lock_pb2, election_pb2, health_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Forget what fixtures have called."""
    CALLED.clear()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what a case has called, and how it ended."""
    report = yield
    server = getattr(item, "callspec", None) and item.callspec.params.get("kind")  # type: ignore[attr-defined]
    if VARIABLE in os.environ and call.when == "call" and server in SERVERS:
        outcome = "differs" if hasattr(report, "wasxfail") else report.outcome
        for path in CALLED:
            _noted.setdefault(server, {}).setdefault(path, Counter())[outcome] += 1
    return report


def pytest_sessionfinish() -> None:
    """Write what was noted."""
    if file := os.environ.get(VARIABLE):
        name = os.environ.get("PYTEST_XDIST_WORKER", "main")
        Path(f"{file}.{name}").write_text(json.dumps(_noted))


def cell(outcomes: Mapping[str, int]) -> str:
    """Say how many cases passed, and whether others did not."""
    if failed := outcomes.get("failed", 0):
        return f"**{failed} of {sum(outcomes.values())} fail**"
    differs = f", {outcomes['differs']} by design not" if outcomes.get("differs") else ""
    return f"{outcomes.get('passed', 0)}{differs}" if outcomes else NONE


def rows(results: Results) -> Iterable[str]:
    """Return the lines of the table."""
    yield f"| RPC | {' | '.join(SERVERS.values())} |"
    yield f"|---|{'---|' * len(SERVERS)}"
    for path in rpcs():
        cells = [cell(results.get(server, {}).get(path, {})) for server in SERVERS]
        yield f"| `{path[1:].partition('.')[2] or path[1:]}` | {' | '.join(cells)} |"


def read(files: Iterable[Path]) -> Results:
    """Add up what processes have noted."""
    found: dict[str, dict[str, Counter[str]]] = {}
    for file in files:
        for server, noted in json.loads(file.read_text("utf-8")).items():
            for path, outcomes in noted.items():
                found.setdefault(server, {}).setdefault(path, Counter()).update(outcomes)
    return found


def main(*files: str) -> None:
    """Write the table of the files of a run."""
    head = TABLE.read_text("utf-8").partition("| RPC |")[0]
    lines = "\n".join(rows(read(map(Path, files))))
    TABLE.write_text(f"{head}{lines}\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
