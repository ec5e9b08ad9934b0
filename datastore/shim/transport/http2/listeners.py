"""Sockets to listen on, bound so that nobody shares them."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path
from typing import Final

_UNUSABLE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def bind_unix(path: Path) -> socket.socket:
    """Return a socket at `path`, made anew with mode 0600; OSError when it cannot be."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        # Before it listens nobody can connect: there is no moment with another mode.
        path.chmod(0o600)
    except OSError:
        listener.close()
        raise
    return listener


def bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Return sockets at every address of `host`; those after the first share its port.

    Raises:
        OSError: none can be bound, or one is in use.
    """
    flags = socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise OSError(error.errno, f"{host}: {error.strerror}") from error
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    with contextlib.ExitStack() as undo:
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
            try:
                listener = _bind(family, (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno not in _UNUSABLE:
                    raise
                failure = error
                continue
            undo.callback(listener.close)
            listeners.append(listener)
            port = listener.getsockname()[1]
        if not listeners:
            raise failure or OSError(errno.EADDRNOTAVAIL, "no address")
        undo.pop_all()
    return listeners


def _bind(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] serves IPv4 too, as with etcd; another address has one family anyway.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
