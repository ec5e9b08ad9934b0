"""The seam's promises, through real gRPC clients on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from datastore.shim.transport.api import (
    Call,
    Code,
    Later,
    Limits,
    Pieces,
    RpcError,
    TlsFiles,
    Transport,
)
from datastore.shim.transport.grpcio import GrpcioTransport
from datastore.shim.transport.http2.server import Http2Transport

ECHO, LATER, FAIL, BUG, SLOW = "/t.T/Echo", "/t.T/Later", "/t.T/Fail", "/t.T/Bug", "/t.T/Slow"
BATCH = "/t.T/Batch"
LARGE, LARGE_LATER = "/t.T/Large", "/t.T/LargeLater"
PARTS = [bytes((number,)) * (number << 10) for number in range(200)]
MIRROR, FLOOD, WAIT, WHO = "/t.T/Mirror", "/t.T/Flood", "/t.T/Wait", "/t.T/Who"
EXCHANGE = "/t.T/Exchange"
TEXT = "etcdserver: mvcc: required revision has been compacted % é"


class Handlers:
    """Handlers that show what the transport gives them."""

    def __init__(self, transport: Transport) -> None:
        self.done: asyncio.Queue[str] = asyncio.Queue()
        self.pending: list[int] = []
        self.flooded = asyncio.Event()
        self.arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self.waiting: list[tuple[Later, bytes]] = []
        transport.unary(BATCH, self.batch)
        transport.unary(LARGE, lambda _call, _body: Pieces(PARTS))
        transport.unary(LARGE_LATER, self.large_later)
        transport.unary(ECHO, lambda _call, body: body)
        transport.unary(LATER, self.later)
        transport.unary(FAIL, self.fail)
        transport.unary(BUG, self.bug)
        transport.unary(SLOW, self.slow)
        transport.unary(WHO, self.who)
        transport.stream(MIRROR, self.mirror)
        transport.stream(EXCHANGE, self.exchange)
        transport.stream(FLOOD, self.flood)
        transport.stream(WAIT, self.wait)

    async def later(self, call: Call, body: bytes) -> bytes:
        await asyncio.sleep(0)
        call.trailer("kind", "late")
        return body[::-1]

    async def large_later(self, call: Call, body: bytes) -> Pieces:
        call.trailer("kind", "large")
        return Pieces(PARTS)

    def batch(self, call: Call, body: bytes) -> Later:
        """Answer the third request, which is refused, and the two before it in one go."""
        later = Later()
        self.arrived.put_nowait(body)
        self.waiting.append((later, body))
        if len(self.waiting) == 3:
            self.waiting.pop()[0].refuse(RpcError(Code.NOT_FOUND, TEXT))
            for waiting, asked in self.waiting:
                waiting.answer(asked)
        return later

    def fail(self, call: Call, body: bytes) -> bytes:
        raise RpcError(Code.OUT_OF_RANGE, TEXT, [("reason", "old")])

    def bug(self, call: Call, body: bytes) -> bytes:
        raise ZeroDivisionError

    async def slow(self, call: Call, body: bytes) -> bytes:
        call.on_done(lambda: self.done.put_nowait("slow"))
        if body == b"deadline":
            assert call.deadline is not None
            assert 0 < call.deadline - asyncio.get_running_loop().time() < 10
        await asyncio.Event().wait()
        return b""

    def who(self, call: Call, body: bytes) -> bytes:
        peer = call.peer
        user = [str(value) for value in call.metadata.get("user", ())]
        return f"{peer.common_name} {peer.cert_der is not None} {user}".encode()

    async def mirror(self, call: Call) -> None:
        while (message := await call.recv()) is not None:
            call.send_nowait(message)
        await call.send(b"half-closed")

    async def exchange(self, call: Call) -> None:
        """Answer by a plain function, and itself what that does not."""
        while (asked := await call.exchange({b"1": b"one"}.get)) is not None:
            if asked == b"3":
                raise RpcError(Code.OUT_OF_RANGE, TEXT)
            await call.send(asked * 2)
        await call.send(b"half-closed")

    async def flood(self, call: Call) -> None:
        for _ in range(64):
            self.pending.append(call.send_nowait(bytes(1 << 20)))
        self.flooded.set()
        await call.send(b"end")

    async def wait(self, call: Call) -> None:
        call.on_done(lambda: self.done.put_nowait("wait"))
        call.send_nowait(b"begun")
        await asyncio.Event().wait()


KINDS: dict[str, Callable[[Limits | None], Transport]] = {
    "grpcio": GrpcioTransport,
    "http2": Http2Transport,
}


@asynccontextmanager
async def serve(
    kind: str,
    url: str = "http://127.0.0.1:0",
    tls: TlsFiles | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[tuple[str, Handlers, Transport]]:
    transport = KINDS[kind](limits)
    handlers = Handlers(transport)
    bound = await transport.listen(url, tls)
    try:
        yield bound.removeprefix("http://").removeprefix("https://"), handlers, transport
    finally:
        await transport.drain(0)


@pytest.fixture(params=KINDS)
def serving(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Serve by each transport."""
    return partial(serve, request.param)


Unary = Callable[..., grpc.aio.UnaryUnaryCall[bytes, bytes]]


async def test_a_unary_handler_answers_at_once_or_later_with_a_trailer(serving) -> None:
    async with serving() as (target, _, _), grpc.aio.insecure_channel(target) as channel:
        assert await channel.unary_unary(ECHO)(b"x\x00") == b"x\x00"
        call = channel.unary_unary(LATER)(b"abc")
        assert await call == b"cba"
        assert ("kind", "late") in list(await call.trailing_metadata())


async def test_a_large_answer_may_come_in_pieces(serving) -> None:
    options = [("grpc.max_receive_message_length", -1)]
    async with (
        serving() as (target, _, _),
        grpc.aio.insecure_channel(target, options=options) as channel,
    ):
        calls = [channel.unary_unary(method)(b"") for method in (LARGE, LARGE_LATER) * 2]
        assert [await call for call in calls] == [b"".join(PARTS)] * 4
        assert ("kind", "large") in list(await calls[1].trailing_metadata())


async def test_answers_given_later_without_a_task_reach_who_asked(serving) -> None:
    async with serving() as (target, handlers, _), grpc.aio.insecure_channel(target) as channel:
        calls = []
        for body in (b"a", b"b", b"c"):
            calls.append(channel.unary_unary(BATCH)(body))
            await handlers.arrived.get()
        assert [await call for call in calls[:2]] == [b"a", b"b"]
        assert await calls[2].code() is grpc.StatusCode.NOT_FOUND
        assert await calls[2].details() == TEXT


async def test_an_error_carries_code_exact_text_and_trailers(serving) -> None:
    async with serving() as (target, _, _), grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(FAIL)(b"")
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert caught.value.details() == TEXT
    assert ("reason", "old") in list(caught.value.trailing_metadata())


async def test_a_fault_of_ours_is_unknown_and_tells_nothing(serving) -> None:
    async with serving() as (target, _, _), grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(BUG)(b"")
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert caught.value.details() == "etcdserver: internal error"


async def test_an_unknown_method_is_unimplemented_at_once(serving) -> None:
    async with serving() as (target, _, _), grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t.T/Nothing")(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("size", [100_000, 3_000_000], ids=["ours", "the core's"])
async def test_a_message_above_the_limit_is_refused(serving, size: int) -> None:
    async with (
        serving(limits=Limits(max_recv=65_536)) as (target, _, _),
        grpc.aio.insecure_channel(target) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(ECHO)(bytes(size))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "received message larger than max" in (caught.value.details() or "").lower()


async def test_a_stream_works_both_ways_and_after_a_half_close(serving) -> None:
    async with serving() as (target, _, _), grpc.aio.insecure_channel(target) as channel:
        call = channel.stream_stream(MIRROR)()
        for message in (b"1", b"22"):
            await call.write(message)
            assert await call.read() == message
        await call.done_writing()
        assert await call.read() == b"half-closed"
        assert await call.code() is grpc.StatusCode.OK


async def test_messages_are_answered_one_by_one_and_in_order(serving) -> None:
    async with serving() as (target, _, _), grpc.aio.insecure_channel(target) as channel:
        call = channel.stream_stream(EXCHANGE)()
        for message, answer in ((b"1", b"one"), (b"2", b"22"), (b"1", b"one")):
            await call.write(message)
            assert await call.read() == answer
        await call.done_writing()
        assert await call.read() == b"half-closed"
        assert await call.code() is grpc.StatusCode.OK
        call = channel.stream_stream(EXCHANGE)()
        await call.write(b"1")
        await call.write(b"3")
        assert await call.read() == b"one"
        assert await call.code() is grpc.StatusCode.OUT_OF_RANGE
        assert await call.details() == TEXT


async def test_pending_bytes_tell_of_a_reader_that_does_not_read(serving) -> None:
    async with serving() as (target, handlers, _), grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_stream(FLOOD)(b"")
        await handlers.flooded.wait()
        assert handlers.pending[-1] > 32 << 20
        sizes = [len(message) async for message in call]
    assert sizes == [1 << 20] * 64 + [3]


async def test_a_cancelled_stream_ends_its_handler(serving) -> None:
    async with serving() as (target, handlers, _), grpc.aio.insecure_channel(target) as channel:
        call = channel.stream_stream(WAIT)()
        assert await call.read() == b"begun"
        call.cancel()
        assert await handlers.done.get() == "wait"


async def test_a_deadline_ends_the_call_and_its_handler(serving) -> None:
    async with serving() as (target, handlers, _), grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(SLOW)(b"deadline", timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await handlers.done.get() == "slow"


@pytest.mark.parametrize("authority", [None, "localhost:m0", "server.sock", "#initially=[a;b]"])
async def test_a_unix_socket_takes_any_authority(
    serving, authority: str | None, tmp_path: Path
) -> None:
    options = [("grpc.default_authority", authority)] if authority else []
    path = tmp_path / "s.sock"
    async with (
        serving(f"unix://{path}") as (target, _, _),
        grpc.aio.insecure_channel(target, options=options) as channel,
    ):
        assert path.stat().st_mode & 0o777 == 0o600
        assert await channel.unary_unary(ECHO)(b"x") == b"x"
    assert not path.exists()


async def test_a_port_in_use_is_an_os_error_that_says_so(serving) -> None:
    async with serving() as (target, _, transport):
        with pytest.raises(OSError, match="in use"):
            await transport.listen(f"http://{target}")


async def test_metadata_reaches_the_handler(serving) -> None:
    async with serving() as (target, _, _), grpc.aio.insecure_channel(target) as channel:
        metadata = (("user", "a"), ("user", "b"))
        assert await channel.unary_unary(WHO)(b"", metadata=metadata) == b"None False ['a', 'b']"


async def test_draining_lets_a_call_under_way_finish_and_takes_no_new_one(serving) -> None:
    async with serving() as (target, _, transport), grpc.aio.insecure_channel(target) as channel:
        call = channel.stream_stream(MIRROR)()
        await call.write(b"1")
        assert await call.read() == b"1"
        draining = asyncio.create_task(transport.drain(30))
        await asyncio.sleep(0)
        await call.write(b"2")
        assert await call.read() == b"2"
        await call.done_writing()
        assert await call.read() == b"half-closed"
        await draining
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(ECHO)(b"x")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


class Pki:
    """A throw-away authority with a server's and a client's certificate."""

    def __init__(self, directory: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.ca = directory / "ca.crt"
        self.ca_pem = self._sign(self.name, self.key.public_key(), ca=True)
        self.ca.write_bytes(self.ca_pem)

    def issue(self, common_name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        cert_file = self.directory / f"{common_name}.crt"
        key_file = self.directory / f"{common_name}.key"
        cert_file.write_bytes(self._sign(subject, key.public_key(), ca=False))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert_file, key_file

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, ca: bool) -> bytes:
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


async def test_a_new_certificate_is_used_from_the_next_handshake_on(
    serving, tmp_path: Path
) -> None:
    pki, other = Pki(tmp_path), Pki(tmp_path / "other")
    cert, key = pki.issue("server")
    new_cert, new_key = other.issue("server")
    async with serving("https://127.0.0.1:0", TlsFiles(cert, key)) as (target, _, _):
        for authority in (pki, other):
            credentials = grpc.ssl_channel_credentials(authority.ca_pem)
            async with grpc.aio.secure_channel(target, credentials) as channel:
                assert await channel.unary_unary(ECHO)(b"x") == b"x"
            new_cert.replace(cert)
            new_key.replace(key)
            new_cert, new_key = other.issue("server")


async def test_a_client_certificate_names_the_user_and_none_is_refused(
    serving, tmp_path: Path
) -> None:
    pki = Pki(tmp_path)
    cert, key = pki.issue("server")
    user_cert, user_key = pki.issue("alice")
    tls = TlsFiles(cert, key, pki.ca, require=True)
    with_cert = grpc.ssl_channel_credentials(
        pki.ca.read_bytes(), user_key.read_bytes(), user_cert.read_bytes()
    )
    without = grpc.ssl_channel_credentials(pki.ca.read_bytes())
    async with serving("https://127.0.0.1:0", tls) as (target, _, _):
        async with grpc.aio.secure_channel(target, with_cert) as channel:
            assert await channel.unary_unary(WHO)(b"") == b"alice True []"
        async with grpc.aio.secure_channel(target, without) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(WHO)(b"")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
