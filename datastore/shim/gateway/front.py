"""What every HTTP request at a client port passes before it is served, as in etcd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from datastore.shim.transport.api import Application

_GATEWAY: Final = ("/v3/", "/v3beta/")
_ANY: Final = "*"
_METHODS: Final = (b"access-control-allow-methods", b"POST, GET, OPTIONS, PUT, DELETE")
_HEADERS: Final = (b"access-control-allow-headers", b"accept, content-type, authorization")
_ORIGIN: Final = b"access-control-allow-origin"


class Browsers(NamedTuple):
    """What pages of other sites may do (etcd's --cors and --host-whitelist); empty is all."""

    origins: frozenset[str] = frozenset({_ANY})
    hosts: frozenset[str] = frozenset({_ANY})


class Front:
    """Serves the gateway below /v3/ and pages elsewhere."""

    def __init__(
        self, pages: Application, gateway: Application | None, browsers: Browsers
    ) -> None:
        self._pages = pages
        self._gateway = gateway
        self._browsers = browsers

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one request."""
        headers = dict(scope["headers"])
        host = _without_port(headers.get(b"host", b"").decode("latin-1"))
        if scope["scheme"] == "http" and not _allows(self._browsers.hosts, host):
            # Against DNS rebinding (CVE-2018-5702). With TLS the certificate has the name.
            await _answer(send, 421, b"the Host header is not in --host-whitelist\n")
            return
        send = self._with_cors(headers.get(b"origin", b"").decode("latin-1"), send)
        if scope["method"] == "OPTIONS":
            await _answer(send, 200, b"")
        elif self._gateway is not None and scope["path"].startswith(_GATEWAY):
            await self._gateway(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    def _with_cors(self, origin: str, send: Any) -> Any:
        """Return a `send` that tells browsers who may read the answer."""
        allowed = self._browsers.origins
        shown = _ANY if _allows(allowed, _ANY) else origin
        if not _allows(allowed, shown):
            return send
        cors = [_METHODS, (_ORIGIN, shown.encode("latin-1")), _HEADERS]

        async def send_with_cors(event: Any) -> None:
            if event["type"] == "http.response.start":
                event = {**event, "headers": [*cors, *event.get("headers", ())]}
            await send(event)

        return send_with_cors


def _allows(allowed: frozenset[str], given: str) -> bool:
    return _ANY in allowed or not allowed or given in allowed


def _without_port(host: str) -> str:
    """Return the name or address of a Host header."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
