"""The database is away, or comes back as one that lost commits: what clients of servers see."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest

from tests.support.client import COMPACTED, Client, refused
from tests.support.cluster import DATABASE, Cluster, Node, running_cluster
from tests.support.databases import SERVERS
from tests.support.running import Server, eventually

LEADER = (("hasleader", "true"),)
NO_LEADER = "etcdserver: no leader"


@pytest.fixture(params=SERVERS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(request.param, tmp_path, size=2) as cluster:
        yield cluster


def ready(server: Server) -> int:
    return httpx.get(f"{server.http}/readyz", timeout=10).status_code


async def until_ready(server: Server, status: int) -> None:
    what = f"/readyz of {server.name} turns {status}"
    await asyncio.to_thread(eventually, lambda: ready(server) == status, what)


async def until_put(client: Client, key: bytes, value: bytes) -> None:
    """Put, again while it is refused: health heals by reads, a writer's link a moment later."""
    while True:
        try:
            await client.put(key, value)
        except grpc.aio.AioRpcError as error:
            if error.details() != NO_LEADER:
                raise
            await asyncio.sleep(0.05)
        else:
            return


async def test_watches_outlast_a_database_that_goes_away(cluster: Cluster) -> None:
    one, other = (node.server for node in cluster.nodes)
    async with (
        Client(one.target) as client,
        Client(other.target) as elsewhere,
        Client(one.target, metadata=LEADER) as watching,
        watching.watch() as stream,
    ):
        await stream.create(b"k")
        await client.put(b"k", b"before")
        await stream.events(1)
        await asyncio.to_thread(cluster.database.stop)
        await until_ready(one, 503)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(5):
            for request in (client.get(b"k"), client.put(b"k", b"refused"), client.grant(60)):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await request
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert caught.value.details() == NO_LEADER
        # Five seconds each would be what a database that does not answer takes.
        assert loop.time() - began < 30, "requests fail fast"
        assert (await client.get(b"k", serializable=True)).kvs[0].value == b"before"
        assert (await asyncio.to_thread(httpx.get, f"{one.http}/livez")).status_code == 200
        await asyncio.to_thread(cluster.database.start)
        await until_ready(one, 200)
        await until_ready(other, 200)
        await until_put(elsewhere, b"k", b"after")
        (event,) = await stream.events(1)
        assert event.kv.value == b"after", "the watch has gone on, and nothing refused was done"
        await until_put(client, b"k", b"last")
        (event,) = await stream.events(1)
        assert event.kv.value == b"last"
    assert one.process.poll() is None
    assert "cannot be served" in one.log.read_text(), "the first failure is told at once"


def has_recorded(node: Node, revision: int) -> bool:
    with suppress(FileNotFoundError):
        return bool(json.loads(node.position_file.read_text())["revision"] == revision)
    return False


def accept_loss(cluster: Cluster, node: Node) -> subprocess.CompletedProcess[str]:
    argv = [
        sys.executable, "-m", "datastore", "accept-loss", "--yes",
        f"--datastore={cluster.database.url(DATABASE)}", f"--position-file={node.position_file}",
    ]  # fmt: skip
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


async def test_a_promoted_replica_that_lost_commits_is_refused_until_the_loss_is_accepted(
    cluster: Cluster, tmp_path: Path
) -> None:
    running, restarted = cluster.nodes
    async with Client(running.server.target) as client:
        await client.put(b"kept", b"1")
        await asyncio.to_thread(cluster.back_up, tmp_path / "replica")
        await until_ready(running.server, 200)
        for n in range(20):
            await until_put(client, b"lost", b"%d" % n)
        served = await client.revision()
    for node in cluster.nodes:
        await asyncio.to_thread(eventually, partial(has_recorded, node, served), "it is recorded")
    restarted.server.stop()
    await asyncio.to_thread(cluster.promote, tmp_path / "replica")
    process = running.server.process
    await asyncio.to_thread(eventually, lambda: process.poll() == 5, "the running server ends")
    assert "the store must not be served" in running.server.log.read_text()
    for node in cluster.nodes:
        with pytest.raises(AssertionError, match=r"ended with 3(.|\n)*accept-loss"):
            await asyncio.to_thread(node.server.start)
    done = await asyncio.to_thread(accept_loss, cluster, restarted)
    assert done.returncode == 0, done.stdout + done.stderr
    await asyncio.to_thread(cluster.start)
    for node in cluster.nodes:
        async with Client(node.server.target) as client, client.watch() as stream:
            assert [kv.key for kv in (await client.get(b"\0", b"\0")).kvs] == [b"kept"]
            assert await client.revision() > served + 10**8
            # Whoever resumes from what was served reads anew.
            with refused(COMPACTED):
                await client.get(b"kept", revision=served)
            created = await stream.create(b"lost", start_revision=served + 1)
            answer = created if created.canceled else await stream.next()
            assert answer.canceled
            assert answer.compact_revision > served
            await client.put(b"kept", b"2")


@pytest.mark.soak
async def test_a_database_that_is_frozen_is_away_too(cluster: Cluster) -> None:
    server = cluster.nodes[0].server
    async with Client(server.target) as client:
        await client.put(b"k", b"before")
        cluster.freeze()
        try:
            await until_ready(server, 503)
            with pytest.raises(grpc.aio.AioRpcError, match=NO_LEADER):
                await client.get(b"k")
        finally:
            cluster.thaw()
        await until_ready(server, 200)
        await until_put(client, b"k", b"after")
    async with Client(cluster.nodes[1].server.target) as elsewhere:
        await until_ready(cluster.nodes[1].server, 200)
        assert (await elsewhere.get(b"k")).kvs[0].value == b"after"
