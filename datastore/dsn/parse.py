"""From a data source and what is said beside it to the target of a driver."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from datastore.dsn.mysql import parse_mysql
from datastore.dsn.postgresql import parse_postgresql
from datastore.dsn.target import DEFAULT_PREFIX, Access, Target, Tls
from datastore.dsn.text import Dsn
from datastore.dsn.url import settle_tls
from datastore.errors import UnusableDsn

_PARSERS: Final[Mapping[str, Callable[[Dsn], Target]]] = {
    "postgres": parse_postgresql,
    "postgresql": parse_postgresql,
    "mysql": parse_mysql,
    "mariadb": parse_mysql,
}
SERVER_SCHEMES: Final = tuple(_PARSERS)

_PREFIX: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_LONGEST_NAME: Final = 63
"""Bytes that PostgreSQL keeps of an identifier."""


def is_server(dsn: Dsn) -> bool:
    """Return whether a data source is a database server that `to_target` understands."""
    return dsn.scheme in _PARSERS


def to_target(dsn: Dsn, access: Access | None = None) -> Target:
    """Return the target of a driver.

    Args:
        dsn: The data source of a database server.
        access: What is said beside it; it must not contradict the data source.

    Raises:
        UnusableDsn: One of them cannot be used; the message holds no secret.
    """
    access = access or Access()
    if not is_server(dsn):
        raise UnusableDsn(f"{dsn} is not a database server; known: {', '.join(SERVER_SCHEMES)}")
    target = _PARSERS[dsn.scheme](dsn)
    try:
        return _with_access(target, access)
    except ValueError as error:
        raise UnusableDsn(f"{dsn}: {error}") from None


def check_prefix(prefix: str) -> str:
    """Return a prefix of table names as it is; raises ValueError."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            "must be up to 32 small letters, digits and underscores, beginning with a letter, "
            f"such as {DEFAULT_PREFIX}"
        )
    return prefix


def check_schema(schema: str) -> str:
    """Return the name of a PostgreSQL schema as it is; raises ValueError."""
    if not schema or "\0" in schema or len(schema.encode()) > _LONGEST_NAME:
        raise ValueError(f"must be a name of at most {_LONGEST_NAME} bytes")
    return schema


def _with_access(target: Target, access: Access) -> Target:
    if access.password and target.password:
        raise ValueError("the password is given twice: in the data source and beside it")
    if access.schema and target.driver != "postgresql":
        raise ValueError("a schema is for PostgreSQL; use a prefix, or another database")
    if access.schema and target.schema and access.schema != target.schema:
        raise ValueError("the schema is given twice: as search_path and beside it")
    if target.driver == "mysql" and access.listen:
        raise ValueError("a data source to listen on is for PostgreSQL; leave it out")
    return replace(
        target,
        tls=_merge(target.tls, access),
        password=access.password or target.password,
        prefix=check_prefix(access.prefix or target.prefix),
        schema=check_schema(schema) if (schema := access.schema or target.schema) else "",
        listen=_listen(access),
    )


def _merge(tls: Tls, access: Access) -> Tls:
    for said, given, what in (
        (tls.ca, access.ca, "CA"),
        (tls.cert, access.cert, "client certificate"),
        (tls.key, access.key, "client key"),
    ):
        if said and given and said != given:
            raise ValueError(f"the {what} is given twice: in the data source and beside it")
    if not (access.ca or access.cert or access.key or access.tls_mode):
        return tls
    return settle_tls(
        access.tls_mode or tls.mode,
        access.ca or tls.ca,
        access.cert or tls.cert,
        access.key or tls.key,
        tls.server_name,
    )


def _listen(access: Access) -> Target | None:
    if access.listen is None:
        return None
    if access.listen.scheme not in {"postgres", "postgresql"}:
        raise ValueError(f"{access.listen}: what is listened on must be a PostgreSQL data source")
    return to_target(access.listen, replace(access, listen=None))
