"""kine's flags and variables, and what each becomes."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from datastore.dsn import TlsMode
from datastore.kinecli.command import kine
from datastore.kinecli.endpoint import DEFAULT_FILE, to_datastore
from datastore.kinecli.flags import FLAGS, IGNORED, MEANT, SWITCH
from datastore.kinecli.options import Invocation, parse_kine
from datastore.shim.options import BadOptions, ServeOptions
from datastore.shim.retention import Retention
from datastore.shim.timing import SlowSql
from tests.support.certificates import Authority

AUTH = ServeOptions("", ()).auth
"""Holds a function, and so equals no other."""


def parsed(texts: Any, environ: Any) -> Invocation:
    made = parse_kine(texts, environ)
    return replace(made, options=replace(made.options, auth=AUTH))


def asked(environ: Any = None, **texts: Any) -> Invocation:
    return parsed({name.replace("_", "-"): text for name, text in texts.items()}, environ or {})


def problems(environ: Any = None, **texts: Any) -> list[str]:
    with pytest.raises(BadOptions) as caught:
        asked(environ, **texts)
    return caught.value.problems


@pytest.fixture
def pem(tmp_path: Path) -> dict[str, str]:
    """Give a server's certificate, its key and their CA."""
    authority = Authority("test")
    cert, key = authority.issue(tmp_path, "server")
    return {"cert": str(cert), "key": str(key), "ca": str(authority.write(tmp_path))}


def test_without_anything_it_is_kines_default() -> None:
    made = asked()
    assert made.options.datastore == f"sqlite://{DEFAULT_FILE}"
    assert made.makes_directory
    assert made.options.listen_client_urls == ("http://0.0.0.0:2379",)
    assert made.options.listen_metrics_urls == ("http://0.0.0.0:8080",)
    (advertised,) = made.options.advertise_client_urls
    assert advertised.endswith(":2379")
    assert "0.0.0.0" not in advertised
    assert made.options.watch_progress_notify_seconds == 5
    assert made.options.quota_bytes == -1
    assert made.options.auto_compaction is None
    assert made.options.slow_sql == SlowSql(1.0, 5.0)
    assert not made.ignored
    (warning,) = made.warnings
    assert "everybody on the network" in warning


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:2379", "http://127.0.0.1:2379"),
        ("localhost:1", "http://localhost:1"),
        ("[::1]:2379", "http://[::1]:2379"),
        (":2379", "http://0.0.0.0:2379"),
        ("tcp://127.0.0.1:2379", "http://127.0.0.1:2379"),
        ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
        ("unix:///run/k0s/kine/kine.sock:2379", "unix:///run/k0s/kine/kine.sock:2379"),
        ("unix://kine.sock", f"unix://{Path.cwd()}/kine.sock"),
        ("", f"unix://{Path.cwd()}/kine.sock"),
    ],
)
def test_addresses_to_listen_on(address: str, url: str) -> None:
    assert asked(listen_address=address).options.listen_client_urls == (url,)


def test_listening_on_this_machine_only_is_no_reason_to_warn() -> None:
    assert not asked(listen_address="127.0.0.1:2379").warnings
    assert not asked(listen_address="unix://kine.sock").warnings


def test_tls_of_the_server(pem: dict[str, str]) -> None:
    files = {"server_cert_file": pem["cert"], "server_key_file": pem["key"]}
    made = asked(listen_address="127.0.0.1:1", trusted_ca_file=pem["ca"], **files)
    assert made.options.listen_client_urls == ("https://127.0.0.1:1",)
    assert made.options.listen_metrics_urls == ("https://0.0.0.0:8080",)
    assert made.options.tls is not None
    assert made.options.tls.require
    made = asked(listen_address="unix:///s", metrics_ignore_tls_config="true", **files)
    assert made.options.listen_client_urls == ("unixs:///s",)
    assert made.options.listen_metrics_urls == ("http://0.0.0.0:8080",)
    assert made.options.tls is not None
    assert not made.options.tls.require


@pytest.mark.parametrize(
    ("address", "urls"),
    [
        ("0", ()),
        ("", ("http://0.0.0.0:8080",)),
        (":2380", ("http://0.0.0.0:2380",)),
        ("127.0.0.1:1", ("http://127.0.0.1:1",)),
    ],
)
def test_addresses_of_metrics(address: str, urls: tuple[str, ...]) -> None:
    assert asked(metrics_bind_address=address).options.listen_metrics_urls == urls


@pytest.mark.parametrize(
    ("endpoint", "datastore"),
    [
        ("", "sqlite://db/state.db"),
        ("sqlite://", "sqlite://db/state.db"),
        ("sqlite:///var/x.db?_journal=WAL", "sqlite:///var/x.db?_journal=WAL"),
        ("postgres://", "postgres://postgres:postgres@localhost/"),
        ("postgres://u:PW@h:1/Kine?a=B", "postgres://u:PW@h:1/kine?a=B"),
        ("postgresql://u@h/Kine", "postgres://u@h/kine"),
        ("mysql://", "mysql://root@unix(/var/run/mysqld/mysqld.sock)/"),
        ("mysql://u:p@tcp(h:3306)/Kine", "mysql://u:p@tcp(h:3306)/Kine"),
        ("memory://", "memory://"),
    ],
)
def test_endpoints(endpoint: str, datastore: str) -> None:
    assert to_datastore(endpoint, tls=False) == datastore


def test_mysql_without_a_place_is_reached_over_tcp_for_tls() -> None:
    assert to_datastore("mysql://", tls=True) == "mysql://root@tcp(127.0.0.1)/"


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://etcd:2379,http://b:2379", "serves nothing for an etcd that runs elsewhere"),
        ("https://etcd:2379", "serves nothing for an etcd that runs elsewhere"),
        ("unix:///etcd.sock", "serves nothing for an etcd that runs elsewhere"),
        ("nats://token@nats:4222", "does not store in NATS"),
        ("jetstream://nats", "does not store in NATS"),
        ("t4:///data", "does not store in t4"),
        ("litestream://x.db", "Litestream"),
        ("dqlite://x", "no dqlite"),
        ("oracle://x", "unknown driver"),
        ("/var/lib/x.db", "must be a data source"),
        ("root@tcp(h)/x", "must be a data source"),
    ],
)
def test_endpoints_that_are_refused_with_a_reason(endpoint: str, reason: str) -> None:
    (problem,) = problems(endpoint=endpoint)
    assert problem.startswith("--endpoint: ")
    assert reason in problem
    assert "token" not in problem


def test_no_problem_shows_a_password() -> None:
    for endpoint in (
        "nats://u:secret@n",
        "mysql://u:secret@tcp(h)/x?nonsense=1",
        "u:secret@tcp(h)/x",
    ):
        assert "secret" not in "".join(problems(endpoint=endpoint))
    made = asked(endpoint="postgres://u:secret@127.0.0.1/x", listen_address="unix:///s")
    assert "secret" not in repr(made)


def test_a_password_on_the_command_line_works_and_is_warned_of() -> None:
    url = "postgres://u:secret@127.0.0.1/x"
    (warning,) = asked(endpoint=url, listen_address="unix:///s").warnings
    assert "KINE_ENDPOINT" in warning
    made = asked({"KINE_ENDPOINT": url}, listen_address="unix:///s")
    assert made.options.datastore == url
    assert not made.warnings


@pytest.mark.parametrize("scheme", ["postgres", "mysql"])
def test_tls_files_of_the_database_make_it_prove_who_it_is(
    scheme: str, pem: dict[str, str]
) -> None:
    made = asked(endpoint=f"{scheme}://u@h/x", ca_file=pem["ca"])
    assert made.options.access.ca == Path(pem["ca"])
    assert made.options.access.tls_mode is TlsMode.VERIFY_FULL
    files = {"cert_file": pem["cert"], "key_file": pem["key"]}
    made = asked(endpoint=f"{scheme}://u@h/x", **files)
    assert made.options.access.cert == Path(pem["cert"])
    assert made.options.access.tls_mode is TlsMode.VERIFY_FULL


def test_verification_is_skipped_where_kine_skips_it(pem: dict[str, str]) -> None:
    made = asked(endpoint="mysql://u@h/x", ca_file=pem["ca"], skip_verify="true")
    assert made.options.access.tls_mode is TlsMode.REQUIRE
    assert made.options.access.ca is None
    made = asked(endpoint="postgres://u@h/x", ca_file=pem["ca"], skip_verify="true")
    assert made.options.access.tls_mode is TlsMode.VERIFY_FULL
    assert made.ignored == ("--skip-verify (for MySQL with TLS files, as in kine)",)


def test_what_the_data_source_says_of_tls_comes_first(pem: dict[str, str]) -> None:
    made = asked(endpoint="postgres://u@h/x?sslmode=verify-ca", ca_file=pem["ca"])
    assert made.options.access.tls_mode is None


def test_compaction() -> None:
    assert asked(compact_interval="5m").options.auto_compaction == Retention.by_both(300.0, 1000)
    made = asked(compact_interval="1h", compact_min_retain="50")
    assert made.options.auto_compaction == Retention.by_both(3600.0, 50)
    assert asked(compact_interval="0").options.auto_compaction is None
    assert asked(compact_interval="-1s").options.auto_compaction is None


def test_other_flags() -> None:
    made = asked(
        watch_progress_notify_interval="30s",
        emulated_etcd_version="3.5.13",
        slow_sql_threshold="-1s",
        slow_sql_warning_threshold="2s",
        log_format="json",
        debug="true",
    )
    assert made.options.watch_progress_notify_seconds == 30
    assert made.options.version == "3.5.13"
    assert made.options.slow_sql == SlowSql(0.0, 2.0)
    assert made.options.log_json
    assert made.options.log_level == "debug"


def test_problems_are_told_at_once_and_in_kines_words(pem: dict[str, str]) -> None:
    found = problems(
        endpoint="http://etcd:2379",
        server_cert_file=pem["cert"],
        trusted_ca_file="/nowhere",
        compact_interval="often",
        compact_min_retain="few",
        emulated_etcd_version="three",
        log_format="xml",
        debug="maybe",
        watch_progress_notify_interval="0",
        listen_address="nonsense",
    )
    text = "\n".join(found)
    assert len(found) == 10
    for name in (
        *("--endpoint", "--server-cert-file and --server-key-file", "--trusted-ca-file: cannot"),
        *("--compact-interval: 'often'", "--compact-min-retain: 'few'", "--log-format: 'xml'"),
        *("--emulated-etcd-version: 'three'", "--debug: 'maybe'", "--listen-address: "),
        "--watch-progress-notify-interval",
    ):
        assert name in text


VALUES: dict[str, str] = {"DURATION": "1m", "N": "7", SWITCH: "true", "TEXT": "7"}


@pytest.mark.parametrize("flag", IGNORED, ids=lambda flag: flag.name)
def test_what_means_nothing_is_accepted_and_named(flag: Any) -> None:
    value = VALUES[flag.metavar]
    by_flag = parsed({flag.name: value}, {})
    by_variable = parsed({}, {flag.variable: value})
    assert by_flag.options == by_variable.options == asked().options
    assert by_flag.ignored == by_variable.ignored == (f"--{flag.name} ({flag.ignored})",)


def test_parameters_and_variables_that_mean_nothing_are_named() -> None:
    made = asked(
        {"KINE_SCHEMA_MIGRATION": "1"},
        endpoint="sqlite:///x/y.db?_journal=WAL&cache=shared&_kine_disable_startup_vacuum",
        ca_file="/nowhere",
    )
    text = "; ".join(made.ignored)
    for name in ("_journal, cache, _kine_disable_startup_vacuum", "--ca-file", "KINE_SCHEMA"):
        assert name in text


DIFFERENT: dict[str, str] = {
    "listen-address": "127.0.0.1:1",
    "endpoint": "memory://",
    "log-format": "json",
    "metrics-bind-address": "0",
    "emulated-etcd-version": "3.6.0",
    "compact-min-retain": "7",
}


@pytest.mark.parametrize(
    "flag", [flag for flag in MEANT if flag.metavar != "FILE"], ids=lambda flag: flag.name
)
def test_a_variable_means_what_its_flag_means_and_the_flag_wins(flag: Any) -> None:
    value = DIFFERENT.get(flag.name) or VALUES[flag.metavar]
    beside = {"compact-interval": "1h"} if flag.name == "compact-min-retain" else {}
    by_flag = parsed({flag.name: value, **beside}, {})
    by_variable = parsed(beside, {flag.variable: value})
    assert by_flag == by_variable
    if flag.name not in {"skip-verify", "metrics-ignore-tls-config"}:
        assert by_flag.options != parsed(beside, {}).options
    assert parsed({flag.name: value, **beside}, {flag.variable: "nonsense://"}) == by_flag


def test_an_empty_variable_is_a_default_where_a_number_is_meant() -> None:
    empty = {flag.variable: "" for flag in FLAGS if flag.metavar in {"N", "DURATION", SWITCH}}
    assert asked(empty) == asked()


def test_the_help_has_every_flag() -> None:
    output = CliRunner().invoke(kine, ["--help"]).output
    for flag in FLAGS:
        assert f"--{flag.name}" in output
    for flag in MEANT:
        assert flag.variable in output


@pytest.mark.parametrize("form", ["-debug=maybe", "--debug=maybe"])
def test_one_dash_is_as_good_as_two(form: str) -> None:
    result = CliRunner().invoke(kine, [form])
    assert result.exit_code == 2
    assert result.output == "--debug: 'maybe' is not true or false\n"


@pytest.mark.parametrize("flag", ["--version", "-v"])
def test_the_version_is_byres(flag: str) -> None:
    result = CliRunner().invoke(kine, [flag])
    assert result.output == f"byre {version('byre')} in kine's place\n"


def test_arguments_are_refused() -> None:
    assert CliRunner().invoke(kine, ["serve"]).exit_code == 2
