"""The JSON gateway where etcd's cannot follow: both ways at once, slow readers, the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from datastore.shim.backends.memory import Fault, Faults, MemoryBackend
from datastore.shim.options import ServeOptions
from datastore.shim.server import Shim
from tests.support.client import Client
from tests.support.json_client import JsonClient, b64


class Away(Faults):
    """While `away`, everything is refused."""

    away = False

    def read(self, operation: str) -> Fault | None:
        return Fault.UNAVAILABLE if self.away else None


class Served:
    """A server in this process, and clients of it."""

    def __init__(self, shim: Shim, faults: Away, client: Client, web: JsonClient) -> None:
        self.shim = shim
        self.faults = faults
        self.client = client
        self.web = web


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    socket = tmp_path / "grpc.sock"
    urls = (f"unix://{socket}", "http://127.0.0.1:0")
    faults = Away()
    options = ServeOptions(datastore="", listen_client_urls=urls)
    backend = MemoryBackend(None, faults, shared=True, inline=False)
    async with Shim(options, backend) as shim, Client(f"unix:{socket}") as client:
        web = JsonClient(shim.urls[1])
        yield Served(shim, faults, client, web)
        await web.close()


def create(key: bytes) -> object:
    return {"create_request": {"key": b64(key)}}


async def test_requests_are_answered_while_more_may_follow(served: Served) -> None:
    async with served.web.open_stream("watch") as stream:
        stream.send(create(b"a"))
        assert (await stream.result())["created"]
        await served.client.put(b"a")
        assert (await stream.result())["events"]
        stream.send({"cancel_request": {}})
        assert (await stream.result())["canceled"]


async def test_who_does_not_read_holds_up_neither_memory_nor_anybody(served: Served) -> None:
    value = bytes(1 << 20)
    async with served.web.stream("watch", create(b"a")) as stream:
        await stream.result()
        async with served.client.watch() as other:
            await other.create(b"a")
            for _ in range(40):
                await served.client.put(b"a", value)
            await other.events(40)
        assert served.shim.hub.counts().slow == 1, "the rest waits in the log"
        seen = 0
        while seen < 40:
            seen += len((await stream.result())["events"])


async def test_a_server_that_stops_ends_streams_with_an_error(tmp_path: Path) -> None:
    options = ServeOptions(datastore="", listen_client_urls=("http://127.0.0.1:0",))
    async with Shim(options, MemoryBackend()) as shim:
        web = JsonClient(shim.urls[0])
        stream = await (context := web.stream("watch", create(b"a"))).__aenter__()
        await stream.result()
    ended = await stream.next()
    assert ended == {"error": {"code": 14, "message": "etcdserver: server stopped"}}
    assert await stream.next() is None
    await context.__aexit__(None, None, None)
    await web.close()


async def test_while_the_database_is_away_requests_fail_and_watches_stay(served: Served) -> None:
    async with served.web.stream("watch", create(b"a")) as stream:
        await stream.result()
        served.faults.away = True
        put = {"key": b64(b"a")}
        while (refused := await served.web.call("kv/range", put)).status == 200:
            pass
        assert refused.refusal == (503, 14, "etcdserver: no leader")
        served.faults.away = False
        while (await served.web.call("kv/put", put)).status != 200:
            pass
        assert (await stream.result())["events"]


async def test_a_connection_may_be_used_again_and_hung_up_anywhere(served: Served) -> None:
    host, port = served.shim.urls[1].removeprefix("http://").split(":")
    request = b'POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{"key":"YQ=="}'
    for cut in range(0, len(request), 7):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request + request[:cut])
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request * 3)
    text = b""
    while text.count(b"cluster_id") < 3:
        text += await reader.read(1000)
    writer.close()
    assert (await served.web.call("kv/range", {"key": b64(b"a")})).status == 200
