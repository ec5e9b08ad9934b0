"""kine's ``--endpoint``: which database it means (kine pkg/drivers), or why it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from datastore.dsn import Dsn, is_server
from datastore.errors import UnusableDsn

DEFAULT_FILE: Final = Path("db/state.db")
"""Below the working directory; kine makes the directory for this file alone."""
POSTGRESQL: Final = "postgres://postgres:postgres@localhost/"
MYSQL: Final = "mysql://root@unix(/var/run/mysqld/mysqld.sock)/"
MYSQL_TLS: Final = "mysql://root@tcp(127.0.0.1)/"

_PASSED_ON: Final = (
    "kine serves nothing for an etcd that runs elsewhere, and neither does byre: give this "
    "address to the clients themselves, such as kube-apiserver's --etcd-servers"
)
_REFUSED: Final[Mapping[str, str]] = {
    **dict.fromkeys(("http", "https", "unix", "unixs"), _PASSED_ON),
    **dict.fromkeys(("nats", "jetstream"), "byre does not store in NATS; use a SQL database"),
    "t4": "byre does not store in t4; use a SQL database",
    "litestream": "byre writes its file in its own way, which Litestream would break; use sqlite://",
    "dqlite": "kine has no dqlite any more; use a SQL database",
}


def to_datastore(endpoint: str, *, tls: bool) -> str:
    """Return the data source that kine's endpoint stands for.

    Args:
        endpoint: As given to kine; empty for its default.
        tls: Whether TLS files for the database are given.

    Raises:
        UnusableDsn: byre does not serve it; the message holds no secret.
    """
    if endpoint in {"", "sqlite://"}:
        return f"sqlite://{DEFAULT_FILE}"
    dsn = Dsn(endpoint)
    if not dsn.scheme:
        raise UnusableDsn("must be a data source, such as sqlite://PATH or postgres://HOST/NAME")
    if reason := _REFUSED.get(dsn.scheme):
        raise UnusableDsn(f"{dsn}: {reason}")
    if dsn.scheme in {"postgres", "postgresql"}:
        return _postgresql(dsn)
    if dsn.scheme == "mysql" and not dsn.rest:
        return MYSQL_TLS if tls else MYSQL
    if dsn.scheme == "sqlite" or is_server(dsn) or dsn.text == "memory://":
        return endpoint
    raise UnusableDsn(f"{dsn}: unknown driver; byre knows sqlite, postgres and mysql")


def sqlite_parameters(datastore: str) -> list[str]:
    """Return the parameters of a SQLite data source: byre sets all of that itself."""
    dsn = Dsn(datastore)
    if dsn.scheme != "sqlite":
        return []
    return [name for name, _ in parse_qsl(dsn.rest.partition("?")[2], keep_blank_values=True)]


def _postgresql(dsn: Dsn) -> str:
    """Return the data source with the database's name in small letters, as kine takes it."""
    if not dsn.rest:
        return POSTGRESQL
    place, question, parameters = dsn.rest.partition("?")
    authority, slash, database = place.partition("/")
    return f"postgres://{authority}{slash}{database.lower()}{question}{parameters}"
