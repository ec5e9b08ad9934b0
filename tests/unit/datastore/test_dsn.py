from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies

from datastore.dsn import Dsn, check_sqlite_parameters, redact, sqlite_path
from datastore.errors import UnusableDsn

DATA = Path("/data")


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("sqlite:///var/lib/x.db", "/var/lib/x.db"),
        ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("sqlite+pysqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("sqlite+pysqlite:///below/x.db", "/data/below/x.db"),
        ("sqlite://x.db", "/data/x.db"),
        ("sqlite://below/x.db?_journal=WAL&cache=shared", "/data/below/x.db"),
        (
            "sqlite://file:/var/lib/k0s/db/state.db?mode=rwc&_journal=WAL",
            "/var/lib/k0s/db/state.db",
        ),
        ("SQLite:///var/lib/x.db", "/var/lib/x.db"),
        ("sqlite:///var/lib/a%20b.db", "/var/lib/a b.db"),
        ("sqlite:///v/x?_kine_disable_startup_vacuum&_busy_timeout=1", "/v/x"),
    ],
)
def test_forms_of_sqlite(text: str, file: str) -> None:
    assert sqlite_path(Dsn(text), DATA) == Path(file)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite://:memory:",
        "sqlite:///:memory:",
        "sqlite:///x.db",
        "postgres://h/d",
        "x.db",
    ],
)
def test_what_is_no_durable_file_is_refused(text: str) -> None:
    with pytest.raises(UnusableDsn):
        sqlite_path(Dsn(text), DATA)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("mode=memory", "mode=memory does not suit a store"),
        ("unknown=1", "does not know the SQLite parameter unknown; leave it out"),
        ("_busytimeout=1", "parameter _busytimeout; did you mean _busy_timeout?"),
    ],
)
def test_parameters_of_sqlite_that_cannot_be_honoured(parameters: str, told: str) -> None:
    with pytest.raises(UnusableDsn, match=re.escape(told)):
        check_sqlite_parameters(Dsn(f"sqlite:///a/x.db?{parameters}"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://u:pw@h:5432/d?sslmode=require", "postgres://u:***@h:5432/d?sslmode=require"),
        ("postgresql+psycopg://u:p@w@h/d", "postgresql+psycopg://u:***@h/d"),
        ("mysql://u:p/w?x=1@tcp(h:3306)/d", "mysql://u:***@tcp(h:3306)/d"),
        ("u:pw@tcp(h:3306)/d", "u:***@tcp(h:3306)/d"),
        ("postgres://u@h/d?password=pw&x=1", "postgres://u@h/d?password=***&x=1"),
        ("postgres://h/d?sslpassword=p@w", "postgres://h/d?sslpassword=***"),
        ("host=h user=u password=pw", "host=h user=u password=***"),
        ("nats://pw@h:4222", "nats://***@h:4222"),
        ("t4://x?s3-secret-key=1", "t4://x?s3-secret-key=1"),
        ("sqlite:///a/b", "sqlite:///a/b"),
        ("a@b", "a@b"),
        ("", ""),
    ],
)
def test_redaction(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(
    strategies.sampled_from(["postgres", "mysql", "postgresql+psycopg"]),
    strategies.text(min_size=1),
    strategies.sampled_from(["h/d", "tcp(h:1)/d", "h:1/d?sslmode=x"]),
)
def test_no_password_shows_in_any_form(scheme: str, password: str, rest: str) -> None:
    password = f"<{password}>"
    dsn = Dsn(f"{scheme}://user:{password}@{rest}")
    assert dsn.has_password
    assert password not in f"{dsn} {dsn!r}"


@pytest.mark.parametrize(
    ("text", "scheme"),
    [("sqlite:///a", "sqlite"), ("PostgreSQL+psycopg://h/d", "postgresql"), ("a:b@tcp(c)/d", "")],
)
def test_schemes(text: str, scheme: str) -> None:
    assert Dsn(text).scheme == scheme
