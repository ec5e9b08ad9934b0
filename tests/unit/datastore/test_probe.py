from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from datastore.endpoint import ClientTls, Endpoint
from datastore.errors import NotReady
from datastore.etcdpb import rpc_pb2
from datastore.launch import EtcdProbe, HttpProbe, Probe
from datastore.pki import Authority, KeyPair, Leaf
from datastore.probe import Identity, cluster_id, identify, probe

LEAF = Leaf("server", "s", dns=("localhost",), addresses=("127.0.0.1",), server=True, client=True)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 503 Nope\r\nContent-Length: 11\r\n\r\n[-]etcd\n no"


def credentials(pair: KeyPair, ca: Path | None) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.cert.read_bytes())],
        ca.read_bytes() if ca else None,
        require_client_auth=ca is not None,
    )


@asynccontextmanager
async def etcd(
    pair: KeyPair | None = None, ca: Path | None = None, code: grpc.StatusCode | None = None
) -> AsyncIterator[str]:
    async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if code:
            await context.abort(code, "etcdserver: mvcc: no")
        assert not rpc_pb2.RangeRequest.FromString(request).serializable
        header = rpc_pb2.ResponseHeader(cluster_id=7, revision=9)
        return rpc_pb2.RangeResponse(header=header).SerializeToString()

    server = grpc.aio.server()
    handlers = {"Range": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("etcdserverpb.KV", handlers),)
    )
    if pair is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials(pair, ca))
    await server.start()
    try:
        yield f"{'https' if pair else 'http'}://127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def tcp(
    answer: bytes | None, unix: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Listen, read one request and send `answer`; None: never answer."""
    release = asyncio.Event()
    serving: list[asyncio.Task[object]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        serving.append(task)
        with suppress(OSError):
            if answer is None:
                await release.wait()
            else:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await reader.read()
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()

    if unix:
        server = await asyncio.start_unix_server(serve, unix)
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        place = "" if unix else f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield place
    finally:
        release.set()
        server.close()
        await asyncio.gather(*serving)


async def reason(what: Probe) -> str:
    with pytest.raises(NotReady) as caught:
        await probe(what)
    return str(caught.value)


class TestHttp:
    async def test_200_is_ready(self) -> None:
        async with tcp(OK) as place:
            await probe(HttpProbe(f"http://{place}/livez"))

    async def test_through_a_socket(self, tmp_path: Path) -> None:
        async with tcp(OK, unix=tmp_path / "s"):
            await probe(HttpProbe("http://localhost/livez", unix=tmp_path / "s"))

    async def test_another_status_tells_the_body(self) -> None:
        async with tcp(BAD) as place:
            assert await reason(HttpProbe(f"http://{place}/x")) == (
                f"http://{place}/x: HTTP 503 [-]etcd no"
            )

    async def test_nobody_listens(self) -> None:
        assert await reason(HttpProbe("http://127.0.0.1:1/x")) == (
            "http://127.0.0.1:1/x: connection refused"
        )

    async def test_no_answer(self) -> None:
        async with tcp(None) as place:
            told = await reason(HttpProbe(f"http://{place}/x", timeout_seconds=0.05))
        assert told.endswith("no answer within 0.05 s")

    async def test_with_a_client_certificate(self, tmp_path: Path) -> None:
        authority = Authority.ensure(tmp_path)
        pair = authority.issue(LEAF)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.cert))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(pair.cert, pair.key)
        async with tcp(OK, tls=context) as place:
            await probe(HttpProbe(f"https://{place}/x", authority.cert, pair.cert, pair.key))


class TestEtcd:
    async def test_an_answer_is_ready_and_tells_the_identity(self) -> None:
        async with etcd() as url:
            await probe(EtcdProbe(url))
            assert await identify(Endpoint((url,))) == Identity(7, 9)
            assert await cluster_id(Endpoint(("http://127.0.0.1:1", url))) == 7

    async def test_tls(self, tmp_path: Path) -> None:
        authority = Authority.ensure(tmp_path)
        pair = authority.issue(LEAF)
        tls = ClientTls(authority.cert, pair.cert, pair.key)
        async with etcd(pair, authority.cert) as url:
            assert await identify(Endpoint((url,), tls)) == Identity(7, 9)

    async def test_every_endpoint_is_named_when_none_answers(self) -> None:
        urls = ("http://127.0.0.1:1", "http://127.0.0.1:2")
        with pytest.raises(NotReady, match=r":1: connection refused; .*:2: connection refused"):
            await identify(Endpoint(urls))

    async def test_an_error_of_the_server_is_told_in_its_words(self) -> None:
        async with etcd(code=grpc.StatusCode.PERMISSION_DENIED) as url:
            assert await reason(EtcdProbe(url)) == f"{url}: etcdserver: mvcc: no"

    async def test_a_server_that_accepts_and_is_silent(self) -> None:
        async with tcp(None) as place:
            told = await reason(EtcdProbe(f"http://{place}", timeout_seconds=0.5))
        assert "no answer within 0.5 s; it accepts connections" in told

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ("authority", "its certificate is refused: "),
            ("address", "its certificate is refused: ip address mismatch"),
            ("client", "does not accept this client"),
            ("plain", "no tls connection: "),
        ],
    )
    async def test_what_is_wrong_with_tls_is_told(
        self, tmp_path: Path, wrong: str, told: str
    ) -> None:
        authority = Authority.ensure(tmp_path / "1")
        other = Authority.ensure(tmp_path / "2")
        leaf = LEAF if wrong != "address" else replace(LEAF, addresses=("127.0.0.9",))
        server = None if wrong == "plain" else authority.issue(leaf)
        client = (other if wrong == "client" else authority).issue(replace(LEAF, name="client"))
        async with etcd(server, authority.cert) as url:
            place = url.replace("http://", "https://")
            ca = other.cert if wrong == "authority" else authority.cert
            what = EtcdProbe(place, ca, client.cert, client.key)
            assert told in (await reason(what)).lower()
