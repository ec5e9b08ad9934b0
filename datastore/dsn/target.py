"""A database server as drivers need it: what a data source and the settings beside it say."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from datastore.dsn.password import Password
from datastore.dsn.text import Dsn

DEFAULT_DATABASE: Final = "kubernetes"
"""kine's name for a database that the data source leaves out."""

DEFAULT_PREFIX: Final = "byre_"


class Host(NamedTuple):
    """Where a server listens.

    A name that begins with a slash is a unix socket: a directory for PostgreSQL, whose socket
    has the port in its name, and the socket itself for MySQL. IPv6 addresses have no brackets.
    """

    name: str
    port: int

    @property
    def is_socket(self) -> bool:
        """Whether this is a unix socket."""
        return self.name.startswith("/")

    @property
    def is_remote(self) -> bool:
        """Whether what is said to it leaves this machine."""
        if self.is_socket or self.name == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.name.partition("%")[0]).is_loopback
        except ValueError:
            return True

    def __str__(self) -> str:
        if self.is_socket:
            return self.name
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class TlsMode(StrEnum):
    """How a connection is protected, in libpq's words; only verify-full is safe from forgers."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def verifies(self) -> bool:
        """Whether the server has to prove who it is."""
        return self in {TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL}


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS to the database. Without `ca` a mode that verifies trusts the system's authorities.

    `server_name` is verified in place of the host, where not empty (MySQL only).
    """

    mode: TlsMode = TlsMode.PREFER
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """What is said about a database beside its data source."""

    prefix: str = ""
    schema: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    tls_mode: TlsMode | None = None
    password: Password | None = field(default=None, repr=False)
    listen: Dsn | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One database on a server, or on several of which one is the primary.

    Attributes:
        driver: ``postgresql`` or ``mysql``, which speaks to MariaDB as well.
        hosts: At least one; they are tried in order.
        database: Made when it is missing and the user may.
        user: Empty for the driver's own default.
        password: Asked for each new connection; None where the server wants none.
        tls: How connections are protected.
        prefix: What names of tables begin with.
        schema: PostgreSQL only: where the tables are; empty for the first of the search path.
        session_attrs: PostgreSQL only: libpq's target_session_attrs, empty for any.
        connect_seconds: How long one attempt to connect may take.
        options: Other parameters of libpq by their names, for PostgreSQL.
        listen: PostgreSQL only: the server to LISTEN on when `hosts` is a pooler.
    """

    driver: str
    hosts: tuple[Host, ...]
    database: str = DEFAULT_DATABASE
    user: str = ""
    password: Password | None = field(default=None, repr=False)
    tls: Tls = field(default_factory=Tls)
    prefix: str = DEFAULT_PREFIX
    schema: str = ""
    session_attrs: str = ""
    connect_seconds: float = 5.0
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    listen: Target | None = None

    @property
    def place(self) -> str:
        """Where it is, for messages and logs: ``db.example.com:5432, database kubernetes``."""
        return f"{', '.join(map(str, self.hosts))}, database {self.database}"

    @property
    def weakness(self) -> str:
        """What is wrong with how its connections are protected; empty when nothing is."""
        remote = [str(host) for host in self.hosts if host.is_remote]
        if not remote or self.tls.mode.verifies:
            return ""
        return (
            f"nothing proves that {', '.join(remote)} is the database: whoever sits between can "
            "read and change everything"
        )
