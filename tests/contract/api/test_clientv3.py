"""Programs on etcd's own Go client (tests/tools/clientv3; contract 2.11, 2.7, 3.2)."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence

import pytest

from tests.support.running import Server
from tests.support.servers import Binaries

SECONDS = 240.0
QUICK = (
    "election",
    "kubernetes",
    "leasing",
    "lock",
    "mirror",
    "namespace",
    "ordering",
    "pages",
    "session",
    "stm",
    "stream",
    "sync",
    "watch-cancel",
    "watch-compacted",
)


async def run(binaries: Binaries, server: Server, *cases: str) -> None:
    """Run cases; each must say ok."""
    assert await asyncio.to_thread(talk, binaries, server, cases) == [
        f"{case}: ok" for case in cases
    ]


def talk(binaries: Binaries, server: Server, cases: Sequence[str]) -> list[str]:
    """Return what the cases say; the server is killed and started again when one asks for it."""
    argv = [str(binaries.clientv3_check), f"--endpoint=http://{server.target}", *cases]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as go:
        assert go.stdin is not None
        assert go.stdout is not None
        said = []
        for line in map(str.strip, go.stdout):
            if line == "restart":
                server.kill()
                server.start()
                print(file=go.stdin, flush=True)
            else:
                said.append(line)
        go.wait(SECONDS)
    return said


async def test_programs_work_as_on_etcd(binaries, server):
    await run(binaries, server, *QUICK)


@pytest.mark.parametrize("case", ["watches", "crowd", "connections"])
async def test_crowds_are_served(binaries, server, case):
    """T43: 10,000 watches on a stream, 10,000 of one key, 1,000 connections."""
    await run(binaries, server, case)


@pytest.mark.parametrize("case", ["lease", "lock-lost"])
async def test_programs_that_outlive_leases_work_as_on_etcd(binaries, server, case):
    await run(binaries, server, case)


async def test_a_watch_goes_on_over_restarts_without_loss_or_repeat(binaries, launch, kind):
    """T26, T29."""
    if kind.startswith("memory"):
        return
    server = launch(kind)
    await run(binaries, server, "watch-resume")
    server.close()
