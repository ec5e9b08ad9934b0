"""MySQL's and MariaDB's data sources: those of Go, which are kine's, and URLs.

| form | example |
|---|---|
| go-sql-driver | ``mysql://u:p@tcp(host:3306)/db?tls=true``, ``mysql://u@unix(/run/my.sock)/db`` |
| URL | ``mysql://u:p@host:25060/db?ssl-mode=REQUIRED`` |
| SQLAlchemy | ``mariadb+pymysql://u:p@host/db?ssl_ca=/etc/ca.pem`` |

In Go's form the password is what it is; in a URL it is percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from datastore.dsn.names import did_you_mean
from datastore.dsn.password import FixedPassword
from datastore.dsn.target import DEFAULT_DATABASE, Target, Tls
from datastore.dsn.text import Dsn
from datastore.dsn.url import (
    Place,
    Url,
    decode,
    only,
    split_place,
    split_query,
    split_url,
    to_choice,
    to_hosts,
    to_port,
    to_seconds,
    to_tls,
)
from datastore.errors import UnusableDsn

PORT: Final = 3306

_GO: Final = re.compile(
    r"(?:(?P<credentials>.*)@)?(?P<network>[a-zA-Z0-9]+)\((?P<address>[^()]*)\)"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_DRIVERS: Final = frozenset({
    "", "pymysql", "mysqldb", "mysqlconnector", "mariadbconnector", "aiomysql", "asyncmy",
    "cymysql", "pyodbc",
})  # fmt: skip

# Words of Go, of MySQL's clients, of Connector/J and of MariaDB's, in small letters.
_MODES: Final = {
    "true": "verify-full",
    "false": "disable",
    "skip-verify": "require",
    "preferred": "prefer",
    "disabled": "disable",
    "required": "require",
    "verify_ca": "verify-ca",
    "verify_identity": "verify-full",
    "disable": "disable",
    "prefer": "prefer",
    "require": "require",
    "verify-ca": "verify-ca",
    "verify-full": "verify-full",
}
_SWITCH: Final = {"true": "true", "1": "true", "false": "", "0": ""}

# Names are compared in small letters and without - and _: each client spells them its own way.
_OWN: Final = frozenset({
    "user", "password", "host", "port", "socket", "unixsocket", "database", "db", "tls", "ssl",
    "sslmode", "sslca", "sslcert", "sslkey", "ssldisabled", "sslverifycert",
    "sslverifyidentity", "sslcheckhostname", "servername", "timeout", "connecttimeout",
})  # fmt: skip
# byre decides these itself, at least as well for its purpose.
_SETTLED: Final = frozenset({
    "allowcleartextpasswords", "allownativepasswords", "autocommit", "binaryprefix", "charset",
    "checkconnliveness", "clientfoundrows", "collation", "columnswithalias", "compress",
    "connectionattributes", "interpolateparams", "loc", "maxallowedpacket", "multistatements",
    "parsetime", "readtimeout", "rejectreadonly", "timetruncate", "useunicode", "writetimeout",
})  # fmt: skip
_SPELLINGS: Final = (
    "user", "password", "host", "port", "socket", "unix_socket", "database", "tls", "ssl",
    "ssl-mode", "ssl_ca", "ssl_cert", "ssl_key", "ssl_disabled", "ssl_verify_cert",
    "ssl_verify_identity", "ssl_check_hostname", "serverName", "timeout", "connect_timeout",
    "charset", "collation", "parseTime", "readTimeout", "writeTimeout",
)  # fmt: skip


def parse_mysql(dsn: Dsn) -> Target:
    """Return what a MySQL or MariaDB data source means; raises UnusableDsn."""
    driver = dsn.text.partition("://")[0].partition("+")[2].lower()
    if driver not in _DRIVERS:
        raise UnusableDsn(f"{dsn}: byre does not know the driver {driver}; write mysql://")
    go = _GO.fullmatch(dsn.rest)
    try:
        return _target(_go_url(go) if go else split_url(dsn))
    except ValueError as error:
        raise UnusableDsn(f"{dsn}: {error}") from None


def _go_url(found: re.Match[str]) -> Url:
    user, colon, password = (found["credentials"] or "").partition(":")
    network, address = found["network"].lower(), found["address"]
    if network == "unix":
        if not address.startswith("/"):
            raise ValueError("unix() must hold an absolute path")
        places = [Place(address, None)]
    elif network in {"tcp", "tcp4", "tcp6"}:
        places = [split_place(address)] if address else []
    else:
        raise ValueError("the network must be tcp(host:port) or unix(/path)")
    return Url(
        user,
        password if colon else None,
        places,
        decode(found["database"] or ""),
        split_query(found["query"] or ""),
    )


def _target(url: Url) -> Target:
    query = _plain_names(url.query)
    password = url.password if url.password is not None else only(query, "password") or None
    places = list(url.places)
    if host := only(query, "host"):
        places = [split_place(host)]
    if socket := only(query, "unixsocket") or only(query, "socket"):
        places = [Place(socket, None)]
    port = to_port(text) if (text := only(query, "port")) else PORT
    timeout = only(query, "connecttimeout") or only(query, "timeout")
    database = url.database or only(query, "database") or only(query, "db")
    return Target(
        "mysql",
        to_hosts(places, "127.0.0.1", port),
        database=database or DEFAULT_DATABASE,
        user=url.user or only(query, "user"),
        password=FixedPassword(password) if password else None,
        tls=_tls(query),
        connect_seconds=to_seconds(timeout, "timeout") if timeout else 5.0,
    )


def _tls(query: Mapping[str, Sequence[str]]) -> Tls:
    mode = ""
    for name in ("tls", "ssl", "sslmode"):
        if text := only(query, name):
            mode = to_choice(text, name, _MODES)
    if only(query, "ssl") and mode == "verify-full":
        # ssl=true asks for TLS; only Go's tls=true asks for verification.
        mode = "require"
    if _is_on(query, "ssldisabled"):
        mode = "disable"
    if _is_on(query, "sslverifycert"):
        mode = "verify-ca"
    if _is_on(query, "sslverifyidentity") or _is_on(query, "sslcheckhostname"):
        mode = "verify-full"
    ca, cert, key = (only(query, name) for name in ("sslca", "sslcert", "sslkey"))
    return to_tls(mode, ca, cert, key, only(query, "servername"))


def _is_on(query: Mapping[str, Sequence[str]], name: str) -> bool:
    text = only(query, name)
    return bool(text and to_choice(text, name, _SWITCH))


def _plain_names(query: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    found: dict[str, Sequence[str]] = {}
    for name, values in query.items():
        plain = name.lower().replace("-", "").replace("_", "")
        if plain not in _OWN | _SETTLED:
            raise ValueError(f"unknown parameter {name}{did_you_mean(name, _SPELLINGS)}")
        found[plain] = [*found.get(plain, ()), *values]
    return found
