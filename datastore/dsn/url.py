"""The grammar that the URLs of databases share: users, several hosts, sockets, parameters.

``scheme://user:password@host1:port1,[::1]:port2/database?name=value``, each part optional and
percent-encoded. Messages never hold a part of the text that may be a piece of a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from datastore.dsn.target import Host, Tls, TlsMode
from datastore.dsn.text import Dsn, redact
from datastore.errors import UnusableDsn

LONGEST_PORT: Final = 65535

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Place(NamedTuple):
    """A host as it was written; `port` is None where there was none."""

    name: str
    port: int | None


class Url(NamedTuple):
    """The parts of a URL, decoded. `query` has the values of a parameter in their order."""

    user: str
    password: str | None
    places: Sequence[Place]
    database: str
    query: Mapping[str, Sequence[str]]


def split_url(dsn: Dsn) -> Url:
    """Return the parts of a data source in URL form; raises UnusableDsn."""
    location, _, query = dsn.rest.partition("?")
    authority, slash, database = location.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    if not at and "@" in dsn.rest and ("@" in database or not slash):
        raise UnusableDsn(
            f"{dsn}: a / or ? in a user name or password must be written as %2F or %3F"
        )
    user, colon, password = credentials.partition(":")
    try:
        return Url(
            decode(user),
            decode(password) if colon else None,
            [_place(host) for host in hosts.split(",")] if hosts else [],
            decode(database),
            split_query(query),
        )
    except ValueError as error:
        raise UnusableDsn(f"{dsn}: {error}") from None


def split_query(text: str) -> dict[str, list[str]]:
    """Return the parameters after the question mark; raises ValueError."""
    found: dict[str, list[str]] = {}
    for pair in filter(None, text.split("&")):
        name, _, value = pair.partition("=")
        # As in libpq, a plus is a plus.
        found.setdefault(decode(name), []).append(decode(value))
    return found


def decode(text: str) -> str:
    """Undo percent-encoding; raises ValueError for what is none, and for NUL."""
    if _BROKEN_ESCAPE.search(text):
        raise ValueError("a percent sign must be written as %25")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("percent-encoded bytes must be UTF-8") from None
    if "\0" in decoded:
        raise ValueError("must not hold %00")
    return decoded


def to_port(text: str) -> int:
    """Return a port; raises ValueError, which does not repeat the text."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= LONGEST_PORT):
        raise ValueError(f"a port must be a number from 1 to {LONGEST_PORT}")
    return int(text)


def split_place(text: str) -> Place:
    """Return the host and the port of ``host``, ``host:port`` or ``[::1]:port``."""
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError("an IPv6 address must be written as [::1] or [::1]:port")
        return Place(name, to_port(port[1:]) if port[1:] else None)
    name, _, port = text.partition(":")
    if ":" in port:
        raise ValueError("an IPv6 address must be written as [::1] or [::1]:port")
    return Place(name, to_port(port) if port else None)


def _place(text: str) -> Place:
    place = split_place(text)
    return Place(decode(place.name), place.port)


def to_hosts(places: Iterable[Place], otherwise: str, port: int) -> tuple[Host, ...]:
    """Return hosts, with `otherwise` and `port` in place of what was left out."""
    found = tuple(Host(place.name or otherwise, place.port or port) for place in places)
    return found or (Host(otherwise, port),)


def only(query: Mapping[str, Sequence[str]], name: str) -> str:
    """Return the value of a parameter, empty where it is absent; raises ValueError."""
    values = query.get(name, ())
    if len(values) > 1:
        raise ValueError(f"the parameter {name} is given twice")
    return values[0] if values else ""


def to_seconds(text: str, name: str) -> float:
    """Return the seconds of ``5``, or of Go's ``5s`` and ``500ms``; raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)?", text, re.ASCII)
    seconds = float(found[1]) * {"ms": 0.001, "m": 60.0}.get(found[2], 1.0) if found else 0.0
    if not seconds:
        raise ValueError(f"{name} must be seconds, such as 5")
    return seconds


def to_choice(text: str, name: str, among: Mapping[str, str]) -> str:
    """Return what a word stands for; raises ValueError that lists the words."""
    if text.lower() not in among:
        raise ValueError(f"{name} must be one of {', '.join(among)}, not {redact(text)}")
    return among[text.lower()]


def to_tls(mode: str, ca: str, cert: str, key: str, server_name: str = "") -> Tls:
    """Return TLS as a data source asks for it; raises ValueError.

    An authority is of use only to verify: with one, nothing less than verification is done.
    """
    return settle_tls(
        TlsMode(mode) if mode else None,
        _file(ca, "the CA file"),
        _file(cert, "the certificate file"),
        _file(key, "the key file"),
        server_name,
    )


def settle_tls(
    mode: TlsMode | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    server_name: str = "",
) -> Tls:
    """Return TLS with the mode that follows from what is given; raises ValueError."""
    if (cert is None) != (key is None):
        raise ValueError("a client certificate and its key must be given together")
    if mode == TlsMode.DISABLE and (ca or cert):
        raise ValueError("TLS files are given, and TLS is disabled; leave out one of them")
    if ca is not None and not (mode and mode.verifies):
        mode = TlsMode.VERIFY_FULL
    if mode is None:
        mode = TlsMode.REQUIRE if cert else TlsMode.PREFER
    return Tls(mode, ca, cert, key, server_name)


def _file(text: str, what: str) -> Path | None:
    if not text:
        return None
    if not text.startswith("/"):
        raise ValueError(f"{what} must be an absolute path in a data source")
    return Path(text)
