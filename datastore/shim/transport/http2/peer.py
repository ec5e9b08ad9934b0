"""Who is at the other end of a connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, cast

from datastore.shim.transport.api import Peer


def find_peer(transport: asyncio.Transport) -> Peer:
    """Return the peer's address, and its certificate if that was verified."""
    certificate, name = None, None
    tls = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
    if tls is not None:
        certificate = tls.getpeercert(binary_form=True)
        name = _common_name(tls.getpeercert())
    return Peer(_address(transport), certificate, name)


def _address(transport: asyncio.Transport) -> str:
    """Return an address in the form that gRPC gives it."""
    wire = transport.get_extra_info("socket")
    name: Any = transport.get_extra_info("peername")
    if wire is not None and wire.family == socket.AF_UNIX:
        return "unix:"
    if not isinstance(name, tuple):
        return "unknown"
    host, port = name[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def _common_name(certificate: Any) -> str | None:
    """Return the common name, which is the user (contract 2.13); of several the last."""
    names = [
        value
        for part in (certificate or {}).get("subject", ())
        for key, value in part
        if key == "commonName"
    ]
    return names[-1] if names else None
