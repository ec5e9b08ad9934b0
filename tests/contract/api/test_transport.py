"""Connections, sockets, TLS, HTTP (contract 1.3, 2.13; traps T41, T43, T46, T62, T63)."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import grpc.aio
import httpx
import pytest

from tests.support.certificates import Authority
from tests.support.client import Client, Code
from tests.support.running import Listen


@pytest.mark.parametrize("authority", ["localhost:m0", "etcd.sock", "#initially=[x;y]", "a_b"])
async def test_any_authority_is_accepted(server, prefix, authority):
    """T46, T63."""
    options = [("grpc.default_authority", authority)]
    async with Client(server.target, options=options) as client:
        await client.put(prefix)


async def test_hundreds_of_connections_each_with_a_watch_are_served(server, prefix):
    """T43: kube-apiserver opens one a resource."""
    clients = [Client(server.target) for _ in range(100)]
    try:
        streams = [client.watch() for client in clients]
        opened = [await stream.__aenter__() for stream in streams]
        await asyncio.gather(*(stream.create(prefix) for stream in opened))
        await clients[0].put(prefix, b"x")
        answers = await asyncio.gather(*(stream.next(30) for stream in opened))
        assert [answer.events[0].kv.value for answer in answers] == [b"x"] * 100
        for stream in streams:
            await stream.__aexit__(None, None, None)
    finally:
        await asyncio.gather(*(client.channel.close(None) for client in clients))


@pytest.mark.soak
async def test_pings_on_an_idle_watch_do_not_end_the_connection(server, prefix):
    """T43: a C-core server with its defaults says too_many_pings to the third."""
    options = [("grpc.keepalive_time_ms", 6000), ("grpc.http2.max_pings_without_data", 0)]
    async with Client(server.target, options=options) as client, client.watch() as stream:
        await stream.create(prefix)
        with pytest.raises(TimeoutError):
            await stream.next(32)
        async with Client(server.target) as other:
            await other.put(prefix)
        assert len((await stream.next()).events) == 1


async def test_a_unix_socket_serves_too(kind, launch, tmp_path):
    """T46: the authority is what the client makes of the socket."""
    path = tmp_path / "s.sock"
    server = launch(kind, listen=Listen.unix(path))
    async with Client(server.target) as client:
        await client.put(b"a")
        async with client.watch() as stream:
            assert (await stream.create(b"a")).created
    server.close()


def tls_flags(directory: Path, authority: Authority) -> list[str]:
    cert, key = authority.issue(directory, "server")
    return [
        f"--cert-file={cert}",
        f"--key-file={key}",
        f"--trusted-ca-file={authority.write(directory)}",
        "--client-cert-auth",
    ]


async def test_tls_wants_a_client_certificate_of_the_right_authority(kind, launch, tmp_path):
    """T46: and speaks h2 by ALPN."""
    authority, stranger = Authority("byre test"), Authority("stranger")
    good = authority.credentials(tmp_path, "client")
    server = launch(kind, *tls_flags(tmp_path, authority), listen=Listen.tcp(good))
    async with Client(server.target, credentials=good) as client:
        await client.put(b"a")
    for bad in (
        grpc.ssl_channel_credentials(authority.pem),
        stranger.credentials(tmp_path, "client", roots=authority),
    ):
        async with Client(server.target, credentials=bad) as client:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await client.put(b"a")
            assert error.value.code() == Code.UNAVAILABLE
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.load_cert_chain(*authority.issue(tmp_path, "alpn"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    host, port = server.target.rsplit(":", 1)
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    writer.close()
    server.close()


# HTTP


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(url)


async def test_health_over_http(server):
    answer = await get(f"{server.http}/health")
    assert answer.status_code == 200
    assert answer.json()["health"] == "true"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_liveness_and_readiness_over_http(server, path):
    answer = await get(server.http + path)
    assert (answer.status_code, answer.text.strip()) == (200, "ok")


async def test_version_over_http(server):
    """T41: kubeadm and Patroni read it."""
    answer = json.loads((await get(f"{server.http}/version")).text)
    assert set(answer) >= {"etcdserver", "etcdcluster"}
    assert all(value.startswith("3.") for value in answer.values())


async def test_metrics_over_http(server):
    answer = await get(f"{server.http}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    for name in (
        "process_resident_memory_bytes",
        "etcd_server_has_leader",
        "etcd_mvcc_db_total_size_in_bytes",
    ):
        assert f"\n{name} " in answer.text


async def test_another_path_over_http_is_not_found(server):
    assert (await get(f"{server.http}/missing")).status_code == 404


async def test_one_port_speaks_http_too(server):
    """T62."""
    answer = await get(f"http://{server.target}/version")
    assert answer.status_code == 200
