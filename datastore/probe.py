"""Ask a process or a store whether it is ready, and say in plain words why it is not."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import grpc
import httpx

from datastore.endpoint import ClientTls, Endpoint
from datastore.errors import NotReady
from datastore.etcdpb import rpc_pb2, rpc_pb2_grpc
from datastore.launch import EtcdProbe, HttpProbe, Probe

_PROBE_KEY: Final = b"/registry/health"
"""kube-apiserver's own health key: any user that it may use can read it."""

_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What opens HTTP/2: the preface and empty settings."""

_LONGEST_BODY: Final = 500


class Identity(NamedTuple):
    """Which store answered, and how far it is; cluster_id 0 when it does not tell (kine)."""

    cluster_id: int
    revision: int


async def probe(what: Probe) -> None:
    """Return when the probe is answered as it should be; raises NotReady."""
    match what:
        case HttpProbe():
            await _http(what)
        case EtcdProbe():
            await _range(what)


async def identify(endpoint: Endpoint, timeout_seconds: float = 5.0) -> Identity:
    """Return the identity of the first URL that answers; raises NotReady when none does."""
    failures = []
    for url in endpoint.urls:
        try:
            return await _range(etcd_probe(url, endpoint.tls, timeout_seconds))
        except NotReady as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise NotReady("; ".join(error.reason for error in failures), failures[0].advice)


async def cluster_id(endpoint: Endpoint, timeout_seconds: float = 5.0) -> int:
    """Return the cluster id from the header of a linearizable read; raises NotReady."""
    return (await identify(endpoint, timeout_seconds)).cluster_id


def etcd_probe(url: str, tls: ClientTls | None, timeout_seconds: float = 2.0) -> EtcdProbe:
    """Return the probe of one URL of an endpoint."""
    if tls is None:
        return EtcdProbe(url, timeout_seconds=timeout_seconds)
    return EtcdProbe(url, tls.ca, tls.cert, tls.key, timeout_seconds)


async def _http(what: HttpProbe) -> None:
    try:
        verify = _tls(what) if what.url.startswith("https:") else False
        transport = httpx.AsyncHTTPTransport(
            verify=verify, uds=str(what.unix) if what.unix else None
        )
        async with (
            asyncio.timeout(what.timeout_seconds),
            # No environment: a proxy has no business between byre and its children.
            httpx.AsyncClient(transport=transport, timeout=None, trust_env=False) as client,  # noqa: S113
        ):
            response = await client.get(what.url)
    except TimeoutError:
        raise NotReady(f"{_place(what)}: no answer within {what.timeout_seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise NotReady(f"{_place(what)}: {_words(error)}") from error
    if response.status_code != httpx.codes.OK:
        body = " ".join(response.text.split())[:_LONGEST_BODY]
        raise NotReady(f"{_place(what)}: HTTP {response.status_code} {body}".rstrip())


async def _range(what: EtcdProbe) -> Identity:
    request = rpc_pb2.RangeRequest(key=_PROBE_KEY, limit=1, keys_only=True)
    try:
        async with asyncio.timeout(what.timeout_seconds), _channel(what) as channel:
            response = await rpc_pb2_grpc.KVStub(channel).Range(
                request, timeout=what.timeout_seconds
            )
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        raise await _explain(what, error) from None
    except OSError as error:
        raise NotReady(f"{what.url}: {_words(error)}") from error
    return Identity(response.header.cluster_id, response.header.revision)


def _channel(what: EtcdProbe) -> grpc.aio.Channel:
    parts = urlsplit(what.url)
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    if parts.scheme == "unix":
        return grpc.aio.insecure_channel(f"unix:{parts.path}", options)
    if parts.scheme != "https":
        return grpc.aio.insecure_channel(parts.netloc, options)
    credentials = grpc.ssl_channel_credentials(
        what.ca.read_bytes() if what.ca else None,
        what.key.read_bytes() if what.key else None,
        what.cert.read_bytes() if what.cert else None,
    )
    return grpc.aio.secure_channel(parts.netloc, credentials, options)


async def _explain(what: EtcdProbe, error: grpc.aio.AioRpcError | TimeoutError) -> NotReady:
    """Find out what is behind gRPC's error, whose words hide most of it."""
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    details = ""
    if isinstance(error, grpc.aio.AioRpcError):
        code, details = error.code(), error.details() or ""
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
        trouble = await _connect(what)
        if trouble:
            return trouble
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return NotReady(
            f"{what.url}: no answer within {what.timeout_seconds:g} s",
            "it accepts connections; has it lost its quorum or its database?",
        )
    return NotReady(f"{what.url}: {details or code.name.lower()}")


async def _connect(what: EtcdProbe) -> NotReady | None:
    place = what.url
    try:
        async with asyncio.timeout(what.timeout_seconds):
            if await _is_welcome(what):
                return None
    except ssl.SSLCertVerificationError as error:
        advice = f"is {what.ca} the authority of its certificate?" if what.ca else "give caFile"
        return NotReady(f"{place}: its certificate is refused: {error.verify_message}", advice)
    except ssl.SSLError as error:
        return NotReady(f"{place}: no TLS connection: {_words(error)}")
    except TimeoutError:
        return NotReady(
            f"{place}: cannot connect within {what.timeout_seconds:g} s",
            "is the address right and the port open?",
        )
    except OSError as error:
        return NotReady(f"{place}: {_words(error)}", "is it running, and is the address right?")
    return _rejected(what)


def _rejected(what: EtcdProbe) -> NotReady:
    if what.url.startswith("https:"):
        return NotReady(
            f"{what.url}: it does not accept this client's certificate",
            f"is {what.cert} signed by the authority that it trusts?",
        )
    return NotReady(f"{what.url}: it closes the connection", "does it want TLS (https://)?")


async def _is_welcome(what: EtcdProbe) -> bool:
    """Connect, and say whether the server greets back, or at least stays on the line.

    In TLS 1.3 a server judges the client's certificate after the handshake.
    """
    parts = urlsplit(what.url)
    if parts.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(parts.path)
    else:
        context = _tls(what) if parts.scheme == "https" else None
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
    try:
        async with asyncio.timeout(what.timeout_seconds / 2):
            writer.write(_GREETING)
            return await reader.read(1) != b""
    except TimeoutError:
        return True
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        writer.transport.abort()


def _tls(what: Probe) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=_text(what.ca))
    if what.cert and what.key:
        context.load_cert_chain(what.cert, what.key)
    return context


def _text(path: Path | None) -> str | None:
    return str(path) if path else None


def _place(what: HttpProbe) -> str:
    return f"{what.url} through {what.unix}" if what.unix else what.url


def _words(error: Exception) -> str:
    """Return the reason of an error without Python's or C's decoration."""
    root: BaseException = error
    # httpx wraps the operating system's error several times.
    while not (isinstance(root, OSError) and root.errno):
        deeper = root.__cause__ or root.__context__
        if isinstance(root, BaseExceptionGroup):
            deeper = root.exceptions[0]
        if deeper is None:
            return str(error).lower() or type(error).__name__
        root = deeper
    if isinstance(root, ssl.SSLError) and root.reason:
        return root.reason.lower().replace("_", " ")
    known = root.errno in errno.errorcode
    return (os.strerror(root.errno) if known else root.strerror or str(root)).lower()
