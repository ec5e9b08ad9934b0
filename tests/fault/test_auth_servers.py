"""Users, roles and tokens on two servers of one database, while they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.auth import (
    BAD_TOKEN,
    DENIED,
    NOBODY,
    READWRITE,
    ROOT,
    Auth,
    bearing,
    logged_in,
)
from tests.support.client import Client, refused
from tests.support.cluster import Cluster, running_cluster
from tests.support.databases import SERVERS


@pytest.fixture(params=SERVERS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(request.param, tmp_path, size=2) as cluster:
        yield cluster


async def test_all_servers_of_a_database_know_the_same_users_and_take_the_same_tokens(cluster):
    one, two = (node.server for node in cluster.nodes)
    async with Client(one.target) as client:
        auth = Auth(client)
        await auth.user("alice", (READWRITE, b"a", b""))
        token = await auth.enable_with_root()
        client.metadata = (("token", token),)
        alice = await auth.login("alice")
        # At once, whether the other has heard of it or not.
        async with bearing(two, alice) as there, Client(two.target) as anybody:
            await there.get(b"a")
            await there.put(b"a", b"1")
            with refused(DENIED):
                await there.put(b"b")
            with refused(NOBODY):
                await anybody.get(b"a")
            await auth.revoke("alice", b"a")
            for request in (there.get(b"a"), there.put(b"a")):
                with refused(DENIED):
                    await request
            await auth.grant("alice", READWRITE, b"a")
            await there.put(b"a", b"2")
            await auth.change_password("alice", "another")
            with refused(BAD_TOKEN):
                await there.get(b"a")
        # A token outlasts the server that issued it.
        await asyncio.to_thread(one.kill)
        async with bearing(two, token) as root:
            assert await Auth(root).users() == ["alice", ROOT]
            await Auth(root).delete_user("alice")
        await asyncio.to_thread(one.start)
        async with bearing(one, token) as root:
            assert await Auth(root).users() == [ROOT]
        async with logged_in(one, ROOT) as root:
            await Auth(root).disable()
        async with Client(two.target) as anybody:
            assert (await anybody.get(b"a")).kvs[0].value == b"2"
