"""Options that say how a database server is reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from datastore.dsn import Access, Dsn, TlsMode
from datastore.dsn.password import PasswordCommand, PasswordFile, PasswordVariable
from datastore.shim.options import BadOptions, ServeOptions, parse

URL = "postgresql://u@10.0.0.1/d"


def options(environ: dict[str, str] | None = None, **texts: str) -> ServeOptions:
    named = {f"datastore-{name}".replace("_", "-"): text for name, text in texts.items()}
    return parse({"datastore": URL, **named}, environ or {})


def problem(environ: dict[str, str] | None = None, **texts: str) -> str:
    with pytest.raises(BadOptions) as caught:
        options(environ, **texts)
    [told] = caught.value.problems
    return told


def test_without_any_the_url_says_everything() -> None:
    assert options().access == Access()


def test_everything_is_taken(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key", "password"):
        (tmp_path / name).write_text("x")
    made = options(
        prefix="a_",
        schema="s",
        ca_file=str(tmp_path / "ca"),
        cert_file=str(tmp_path / "cert"),
        key_file=str(tmp_path / "key"),
        tls_mode="verify-ca",
        password_file=str(tmp_path / "password"),
        listen="postgresql://u@10.0.0.2/d",
    )
    assert made.access == Access(
        "a_",
        "s",
        tmp_path / "ca",
        tmp_path / "cert",
        tmp_path / "key",
        TlsMode.VERIFY_CA,
        PasswordFile(tmp_path / "password"),
        Dsn("postgresql://u@10.0.0.2/d"),
    )
    assert made.weakness == ""


def test_a_password_comes_from_a_variable_or_a_command() -> None:
    made = options({"PW": "secret"}, password_env="PW")
    assert made.access.password == PasswordVariable("PW", "secret")
    assert "secret" not in repr(made)
    assert options(password_command="a 'b c'").access.password == PasswordCommand(("a", "b c"))


def test_a_data_source_with_a_password_to_listen_on_comes_from_the_environment() -> None:
    secret = "postgresql://u:secret@10.0.0.2/d"
    made = options({"BYRE_DATASTORE_LISTEN": secret})
    assert made.access.listen == Dsn(secret)
    assert "secret" not in repr(made)
    told = problem(listen=secret)
    assert "BYRE_DATASTORE_LISTEN" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ({"tls_mode": "maybe"}, "--datastore-tls-mode: 'maybe' is not one of disable"),
        ({"ca_file": "/nowhere"}, "--datastore-ca-file: cannot read /nowhere"),
        ({"password_env": "NOWHERE"}, "NOWHERE is not in the environment"),
        ({"password_command": "'"}, "--datastore-password-command: no closing quotation"),
        ({"prefix": "A"}, "small letters"),
        ({"password_env": "PW", "password_command": "x"}, "give one of them"),
    ],
)
def test_mistakes_are_told(texts: dict[str, str], told: str) -> None:
    assert told in problem({"PW": "x"}, **texts)


def test_a_url_that_cannot_be_used_is_told_before_anything_is_opened() -> None:
    with pytest.raises(BadOptions, match="unknown parameter sslmod; did you mean sslmode"):
        parse({}, {"BYRE_DATASTORE": "postgresql://u:secret@h/d?sslmod=x"})


def test_what_is_for_servers_is_refused_beside_a_file() -> None:
    with pytest.raises(BadOptions, match="--datastore-prefix: of use with a database server"):
        parse({"datastore": "sqlite:///a/b", "datastore-prefix": "a_"}, {})


def test_a_remote_server_without_an_authority_is_weak() -> None:
    assert "10.0.0.1:5432" in options().weakness
    assert options(tls_mode="verify-full").weakness == ""
