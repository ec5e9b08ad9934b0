"""PostgreSQL's data sources: libpq's URLs, SQLAlchemy's and those of kine, which are pgx's.

| form | example |
|---|---|
| libpq | ``postgresql://u:p@h1:5432,h2/db?sslmode=verify-full&target_session_attrs=read-write`` |
| SQLAlchemy | ``postgresql+psycopg://u:p@/db?host=h1:5432&host=h2:5432`` |
| kine | ``postgres://u:p@h/db?search_path=cluster1`` |
| socket | ``postgresql:///db?host=/run/postgresql``, ``postgresql://%2Frun%2Fpostgresql/db`` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from datastore.dsn.names import did_you_mean
from datastore.dsn.password import FixedPassword
from datastore.dsn.target import DEFAULT_DATABASE, Host, Target
from datastore.dsn.text import Dsn
from datastore.dsn.url import (
    Place,
    Url,
    only,
    split_place,
    split_url,
    to_choice,
    to_hosts,
    to_port,
    to_seconds,
    to_tls,
)
from datastore.errors import UnusableDsn

PORT: Final = 5432
SOCKET_DIRECTORY: Final = "/var/run/postgresql"
"""Where pgx, and with it kine, looks first when no host is given."""

_DRIVERS: Final = frozenset({
    "", "psycopg", "psycopg2", "psycopg2cffi", "psycopg_async", "asyncpg", "pg8000", "pygresql",
})  # fmt: skip
_MODES: Final = {
    mode: mode for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
}
# A standby cannot be written to: asking for one is a mistake.
_SESSIONS: Final = {"any": "", "read-write": "read-write", "primary": "primary"}

# What is decided here, and by which part of the Target.
_OWN: Final = frozenset({
    "host", "port", "dbname", "user", "password", "sslmode", "sslrootcert", "sslcert",
    "sslkey", "ssl", "connect_timeout", "target_session_attrs", "search_path",
})  # fmt: skip
# https://www.postgresql.org/docs/current/libpq-connect.html: what psycopg is told as it is.
_PASSED: Final = frozenset({
    "application_name", "channel_binding", "fallback_application_name", "gssdelegation",
    "gssencmode", "gsslib", "hostaddr", "keepalives", "keepalives_count", "keepalives_idle",
    "keepalives_interval", "krbsrvname", "load_balance_hosts", "max_protocol_version",
    "min_protocol_version", "options", "passfile", "require_auth", "requirepeer",
    "scram_client_key", "scram_server_key", "ssl_max_protocol_version",
    "ssl_min_protocol_version", "sslcertmode", "sslcompression", "sslcrl", "sslcrldir",
    "sslkeylogfile", "sslnegotiation", "sslpassword", "sslsni", "tcp_user_timeout",
})  # fmt: skip
# byre decides these itself, at least as well for its purpose; the pgx ones come with kine.
_SETTLED: Final = frozenset({
    "client_encoding", "default_query_exec_mode", "description_cache_capacity", "pool_max_conns",
    "pool_min_conns", "pool_max_conn_idle_time", "pool_max_conn_lifetime",
    "pool_health_check_period", "prefer_simple_protocol", "statement_cache_capacity",
    "statement_cache_mode", "timezone",
})  # fmt: skip
_REFUSED: Final = {
    "replication": "a replication connection cannot hold a store; leave it out",
    "requiressl": "is no longer a parameter of libpq; write sslmode=require",
    "service": "a service file is not read; write host, port and database into the data source",
}
_KNOWN: Final = _OWN | _PASSED | _SETTLED


def parse_postgresql(dsn: Dsn) -> Target:
    """Return what a PostgreSQL data source means; raises UnusableDsn."""
    driver = dsn.text.partition("://")[0].partition("+")[2].lower()
    if driver not in _DRIVERS:
        raise UnusableDsn(f"{dsn}: byre does not know the driver {driver}; write postgresql://")
    url = split_url(dsn)
    try:
        _check_names(url.query)
        return _target(url)
    except ValueError as error:
        raise UnusableDsn(f"{dsn}: {error}") from None


def _target(url: Url) -> Target:
    query = url.query
    hosts = _hosts(url)
    password = url.password if url.password is not None else only(query, "password") or None
    session = only(query, "target_session_attrs") or "any"
    session = to_choice(session, "target_session_attrs", _SESSIONS)
    if len(hosts) > 1 and not session:
        session = "read-write"
    timeout = only(query, "connect_timeout")
    return Target(
        "postgresql",
        hosts,
        database=url.database or only(query, "dbname") or DEFAULT_DATABASE,
        user=url.user or only(query, "user"),
        password=FixedPassword(password) if password else None,
        tls=to_tls(*_tls(query)),
        schema=_schema(only(query, "search_path")),
        session_attrs=session,
        connect_seconds=to_seconds(timeout, "connect_timeout") if timeout else 5.0,
        options={
            name: only(query, name) for name in query if name in _PASSED or name == "hostaddr"
        },
    )


def _hosts(url: Url) -> tuple[Host, ...]:
    """Return the hosts; those of the query take the place of the authority's, as in libpq."""
    places = list(url.places)
    names = [name for value in url.query.get("host", ()) for name in value.split(",")]
    if not names and not places:
        names = [name for name in only(url.query, "hostaddr").split(",") if name]
    if names:
        places = [_named(name) for name in names]
    ports = [port for value in url.query.get("port", ()) for port in value.split(",")]
    if ports:
        count = max(len(places), 1)
        if len(ports) not in {1, count}:
            raise ValueError(f"port names {len(ports)} ports for {count} hosts")
        numbers = [to_port(port) for port in ports] * (count if len(ports) == 1 else 1)
        named = places or [Place("", None)]
        places = [Place(place.name, number) for place, number in zip(named, numbers, strict=True)]
    return to_hosts(places, SOCKET_DIRECTORY, PORT)


def _named(text: str) -> Place:
    """Return a host of a parameter: libpq's bare name or address, or SQLAlchemy's name:port."""
    if text.startswith("/") or (text.count(":") > 1 and not text.startswith("[")):
        return Place(text, None)
    return split_place(text)


def _tls(query: Mapping[str, Sequence[str]]) -> tuple[str, str, str, str]:
    mode, ca = only(query, "sslmode"), only(query, "sslrootcert")
    if mode:
        mode = to_choice(mode, "sslmode", _MODES)
    elif only(query, "ssl"):
        # JDBC's spelling, which libpq takes in URLs.
        mode = to_choice(only(query, "ssl"), "ssl", {"true": "require", "false": "disable"})
    if ca == "system":
        ca, mode = "", "verify-full"
    return mode, ca, only(query, "sslcert"), only(query, "sslkey")


def _schema(search_path: str) -> str:
    first = search_path.partition(",")[0].strip().strip('"')
    return "" if first == "$user" else first


def _check_names(query: Mapping[str, Sequence[str]]) -> None:
    for name in query:
        if name in _REFUSED:
            raise ValueError(f"{name}: {_REFUSED[name]}")
        if name not in _KNOWN:
            raise ValueError(f"unknown parameter {name}{did_you_mean(name, _KNOWN)}")
