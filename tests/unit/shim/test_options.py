"""Options of the server: etcd's names, all problems at once, no password in argv."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datastore.pki import Authority, Leaf
from datastore.shim.options import (
    DEFAULT_QUOTA_BYTES,
    BadOptions,
    ServeOptions,
    parse,
    to_seconds,
)

URL = "sqlite:////tmp/x.db"


def options(environ: dict[str, str] | None = None, **texts: str | None) -> ServeOptions:
    named = {name.replace("_", "-"): text for name, text in texts.items()}
    return parse(named, environ or {})


def problems(environ: dict[str, str] | None = None, **texts: str | None) -> list[str]:
    with pytest.raises(BadOptions) as caught:
        options(environ, **texts)
    return caught.value.problems


def test_the_command_line_of_the_readme_is_enough() -> None:
    made = options(datastore=URL, listen_client_urls="http://127.0.0.1:2379")
    assert made.datastore == URL
    assert made.listen_client_urls == ("http://127.0.0.1:2379",)
    assert (made.max_txn_ops, made.max_request_bytes) == (128, 1572864)
    assert made.quota_bytes == DEFAULT_QUOTA_BYTES
    assert made.watch_progress_notify_seconds == 600


def test_without_an_address_a_private_unix_socket_is_served() -> None:
    (url,) = options(datastore=URL).listen_client_urls
    assert url.startswith("unix:///")


def test_all_problems_are_told_at_once() -> None:
    found = problems(
        max_txn_ops="many",
        watch_progress_notify_interval="1ms",
        listen_client_urls="ftp://x:1,http://127.0.0.1,unix://relative",
        log_level="loud",
        client_cert_auth="true",
    )
    text = "\n".join(found)
    for name in ("max-txn-ops", "interval", "ftp", "http://127.0.0.1'", "relative", "loud"):
        assert name in text
    assert "no datastore" in text
    assert "--client-cert-auth needs --trusted-ca-file" in text


def test_a_transport_that_is_unknown_is_a_problem() -> None:
    made = options(datastore=URL, listen_client_urls="unix:///s", transport="grpcio")
    assert made.transport == "grpcio"
    (problem,) = problems(datastore=URL, listen_client_urls="unix:///s", transport="http3")
    assert problem == "--transport: 'http3' is not one of http2, grpcio"


def test_a_negative_quota_is_none_and_zero_is_etcds_default() -> None:
    assert options(datastore=URL, quota_backend_bytes="-1").quota_bytes == -1
    assert options(datastore=URL, quota_backend_bytes="0").quota_bytes == DEFAULT_QUOTA_BYTES
    assert options(datastore="postgresql://db.example/x").quota_bytes == -1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("200ms", 0.2), ("5s", 5), ("1h30m", 5400), ("1.5m", 90), ("0", 0), ("2h0m0s", 7200)],
)
def test_go_durations(text: str, seconds: float) -> None:
    assert to_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-1s", "1d", "5sx"])
def test_what_is_no_go_duration(text: str) -> None:
    assert to_seconds(text) is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@h/db",
        "mysql://u:secret@tcp(h:3306)/db",
        "u:secret@tcp(h:3306)/db",
        "postgresql://h/db?user=u&password=secret",
    ],
)
def test_a_password_on_the_command_line_is_refused_and_not_repeated(url: str) -> None:
    (problem,) = problems(datastore=url)
    assert "secret" not in problem
    assert "--datastore-file" in problem


@pytest.mark.parametrize("url", [URL, "sqlite://x.db?_journal=WAL", "postgresql://u@h/db"])
def test_what_has_no_password(url: str) -> None:
    assert options(datastore=url).datastore == url


def test_secrets_come_by_file_environment_or_descriptor(tmp_path: Path) -> None:
    secret = "postgresql://u:secret@h/db"
    file = tmp_path / "url"
    file.write_text(secret + "\n")
    read, write = os.pipe()
    os.write(write, secret.encode())
    os.close(write)
    for made in (
        options(datastore_file=str(file)),
        options({"BYRE_DATASTORE": secret}),
        options(datastore=f"fd:{read}"),
    ):
        assert made.datastore == secret
        assert "secret" not in repr(made)


@pytest.mark.parametrize(
    "texts",
    [("fd:x", None), (None, "/nowhere/at/all"), ("fd:4711", None)],
)
def test_an_unreadable_source_is_a_problem(texts: tuple[str | None, str | None]) -> None:
    (problem,) = problems(datastore=texts[0], datastore_file=texts[1])
    assert "cannot be read" in problem


def test_plaintext_off_loopback_must_be_asked_for_by_name() -> None:
    (advertise, problem) = problems(datastore=URL, listen_client_urls="http://0.0.0.0:2379")
    assert "--advertise-client-urls" in advertise
    assert "--allow-plaintext-tcp" in problem
    made = options(
        datastore=URL,
        listen_client_urls="http://0.0.0.0:2379",
        advertise_client_urls="http://db.example:2379",
        allow_plaintext_tcp="true",
    )
    assert made.listen_client_urls == ("http://0.0.0.0:2379",)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_plaintext_on_loopback_works_as_it_is(host: str) -> None:
    options(datastore=URL, listen_client_urls=f"http://{host}:2379")


def test_a_trusted_ca_makes_client_certificates_mandatory(tmp_path: Path) -> None:
    authority = Authority.ensure(tmp_path)
    server = authority.issue(Leaf("server", "server", server=True))
    made = options(
        datastore=URL,
        listen_client_urls="https://127.0.0.1:1",
        cert_file=str(server.cert),
        key_file=str(server.key),
        trusted_ca_file=str(authority.cert),
    )
    assert made.tls is not None
    assert made.tls.require


def test_certificates_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    authority = Authority.ensure(tmp_path)
    server = authority.issue(Leaf("server", "server", server=True))
    garbage = tmp_path / "garbage"
    garbage.write_text("x")
    for cert, key, ca, words in (
        (server.cert, authority.key, authority.cert, "is not the key of the certificate"),
        (garbage, server.key, authority.cert, "is not in PEM form"),
        (server.cert, server.key, garbage, "holds no certificate in PEM form"),
    ):
        (problem,) = problems(
            datastore=URL, cert_file=str(cert), key_file=str(key), trusted_ca_file=str(ca)
        )
        assert words in problem


def test_https_without_a_certificate_is_a_problem(tmp_path: Path) -> None:
    found = problems(datastore=URL, listen_client_urls="https://127.0.0.1:1")
    assert found == ["https://127.0.0.1:1 needs --cert-file and --key-file"]
    (missing, pair) = problems(datastore=URL, cert_file=str(tmp_path / "none"))
    assert "no such file" in missing
    assert "give both" in pair
