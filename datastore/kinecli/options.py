"""From kine's flags and environment to the options of the shim."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from datastore.dsn import Dsn, is_server
from datastore.errors import UnusableDsn
from datastore.kinecli.endpoint import DEFAULT_FILE, sqlite_parameters, to_datastore
from datastore.kinecli.flags import FLAGS, SCHEMA_MIGRATION, SWITCH
from datastore.shim.options import (
    ENVIRONMENT_VARIABLE,
    BadOptions,
    ServeOptions,
    is_loopback,
    is_unspecified,
    parse,
    to_seconds,
)
from datastore.shim.retention import SHORTEST, Retention
from datastore.shim.timing import SlowSql

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_TLS_FILES: Final = ("ca-file", "cert-file", "key-file")
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?")

# What a problem with an option of the shim is to be called: kine's names.
_KINES: Final[Mapping[str, str]] = {
    "advertise-client-urls": "listen-address",
    "client-cert-auth": "trusted-ca-file",
    "datastore-ca-file": "ca-file",
    "datastore-cert-file": "cert-file",
    "datastore-key-file": "key-file",
    "datastore-tls-mode": "skip-verify",
    "cert-file": "server-cert-file",
    "key-file": "server-key-file",
    "listen-client-urls": "listen-address",
    "listen-metrics-urls": "metrics-bind-address",
}

_DEFAULTS: Final = {flag.name: flag.default for flag in FLAGS}


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a command line of kine asks for.

    Attributes:
        options: For the shim.
        ignored: What was given and means nothing here.
        warnings: What the user should change, although it works.
        makes_directory: Whether the directory of the database's file is made first, as kine does
            for its default.
    """

    options: ServeOptions
    ignored: tuple[str, ...]
    warnings: tuple[str, ...]
    makes_directory: bool


class Given:
    """The texts of kine's flags: of the command line, of the environment, or kine's defaults."""

    def __init__(self, texts: Mapping[str, str | None], environ: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self._texts: dict[str, str] = {}
        for flag in FLAGS:
            text = texts.get(flag.name)
            inherited = environ.get(flag.variable)
            # An empty variable is an empty text, and the default of anything else, as in Go.
            if inherited == "" and flag.metavar in {"N", "DURATION", SWITCH}:
                inherited = None
            if (found := inherited if text is None else text) is not None:
                self._texts[flag.name] = found

    def __contains__(self, name: str) -> bool:
        """Whether a flag or its variable was given."""
        return name in self._texts

    def text(self, name: str) -> str:
        return self._texts.get(name, _DEFAULTS[name])

    def switch(self, name: str) -> bool:
        text = self.text(name)
        if text not in _TRUE | _FALSE:
            self.problems.append(f"--{name}: {text!r} is not true or false")
        return text in _TRUE

    def seconds(self, name: str) -> float:
        """Return a Go duration; one below 0 is 0, as kine takes it."""
        text = self.text(name)
        seconds = to_seconds(text.removeprefix("-"))
        if seconds is None:
            self.problems.append(
                f"--{name}: {text!r} is not a duration, such as 200ms, 5s or 1h30m"
            )
            return 0.0
        return 0.0 if text.startswith("-") else seconds

    def number(self, name: str) -> int:
        text = self.text(name)
        if text.isascii() and text.isdigit():
            return int(text)
        self.problems.append(f"--{name}: {text!r} is not a whole number of at least 0")
        return 0


def parse_kine(texts: Mapping[str, str | None], environ: Mapping[str, str]) -> Invocation:
    """Return what to serve.

    Args:
        texts: kine's flags without dashes in front, to their texts; None where absent.
        environ: The environment, with kine's variables.

    Raises:
        BadOptions: with every problem found.
    """
    given = Given(texts, environ)
    datastore = _datastore(given)
    served = {**_listeners(given), **_access(given, datastore), **_logging(given)}
    served["watch-progress-notify-interval"] = given.text("watch-progress-notify-interval")
    served["quota-backend-bytes"] = "-1"  # kine knows no quota
    retention, version = _retention(given), _version(given)
    slow = SlowSql(
        given.seconds("slow-sql-threshold"), given.seconds("slow-sql-warning-threshold")
    )
    try:
        options = parse(served, {ENVIRONMENT_VARIABLE: datastore or "memory://"})
    except BadOptions as error:
        given.problems += [_rename(problem) for problem in error.problems]
    if given.problems:
        raise BadOptions(given.problems)
    return Invocation(
        replace(options, auto_compaction=retention, version=version, slow_sql=slow),
        _ignored(given, environ, datastore),
        _warnings(texts, options),
        makes_directory=datastore == f"sqlite://{DEFAULT_FILE}",
    )


def _datastore(given: Given) -> str:
    """Return the data source, or nothing where there is a problem with it."""
    try:
        return to_datastore(given.text("endpoint"), tls=_has_tls(given))
    except UnusableDsn as error:
        given.problems.append(f"--endpoint: {error}")
        return ""


def _has_tls(given: Given) -> bool:
    return any(given.text(name) for name in _TLS_FILES)


def _access(given: Given, datastore: str) -> dict[str, str]:
    """Return how the database is reached: with any TLS file it has to prove who it is."""
    dsn = Dsn(datastore)
    if not is_server(dsn) or not _has_tls(given):
        return {}
    options = {
        "datastore-cert-file": given.text("cert-file"),
        "datastore-key-file": given.text("key-file"),
    }
    if dsn.scheme == "mysql" and given.switch("skip-verify"):
        return {**options, "datastore-tls-mode": "require"}
    if "sslmode=" not in dsn.rest.partition("?")[2]:
        options["datastore-tls-mode"] = "verify-full"
    return {**options, "datastore-ca-file": given.text("ca-file")}


def _listeners(given: Given) -> dict[str, str]:
    secure = bool(given.text("server-cert-file") and given.text("server-key-file"))
    url = _client_url(given.text("listen-address"), secure=secure)
    options = {
        "listen-client-urls": url,
        # kine serves every address in plain text unless it is told otherwise; `_warnings` tells.
        "allow-plaintext-tcp": "true",
        "advertise-client-urls": _reachable(url) if is_unspecified(url) else "",
        "cert-file": given.text("server-cert-file"),
        "key-file": given.text("server-key-file"),
        "trusted-ca-file": given.text("trusted-ca-file"),
    }
    address = given.text("metrics-bind-address") or _DEFAULTS["metrics-bind-address"]
    if address != "0":
        secure = secure and not given.switch("metrics-ignore-tls-config")
        options["listen-metrics-urls"] = _tcp_url(address, secure=secure)
    return options


def _client_url(address: str, *, secure: bool) -> str:
    """Return the URL of an address in kine's form; none is a socket in the working directory."""
    scheme, separator, rest = (address or "unix://kine.sock").partition("://")
    if scheme == "unix" and separator:
        return f"unix{'s' if secure else ''}://{Path(rest).absolute()}"
    return _tcp_url(rest if separator else address, secure=secure)


def _tcp_url(address: str, *, secure: bool) -> str:
    host = "0.0.0.0" if address.startswith(":") else ""  # noqa: S104 - Go's meaning of no host
    return f"http{'s' if secure else ''}://{host}{address}"


def _reachable(url: str) -> str:
    """Return the URL with an address of this machine that others can use."""
    parts = urlsplit(url)
    host = _own_address()
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port}"


def _own_address() -> str:
    """Return the address from which this machine would reach the world; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of RFC 5737, which is nobody's
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _logging(given: Given) -> dict[str, str]:
    form = given.text("log-format")
    if form not in {"plain", "json"}:
        given.problems.append(f"--log-format: {form!r} is not plain or json")
    return {
        "log-format": "json" if form == "json" else "console",
        "log-level": "debug" if given.switch("debug") else "info",
    }


def _retention(given: Given) -> Retention | None:
    interval, kept = given.seconds("compact-interval"), given.number("compact-min-retain")
    if not interval:
        return None
    if interval < SHORTEST:
        given.problems.append(f"--compact-interval: give {SHORTEST:g}s at least, or 0")
    return Retention.by_both(interval, kept)


def _version(given: Given) -> str:
    version = given.text("emulated-etcd-version")
    if version and not _VERSION.fullmatch(version):
        # kube-apiserver parses it, and takes what it cannot parse for an etcd without features.
        given.problems.append(
            f"--emulated-etcd-version: {version!r} is no version, such as 3.6.11"
        )
    return version


def _rename(problem: str) -> str:
    """Return a problem with the shim's options in kine's words."""
    renamed = re.sub(r"--([a-z-]+)", lambda found: f"--{_KINES.get(found[1], found[1])}", problem)
    return renamed.replace("the datastore:", "--endpoint:")


def _ignored(given: Given, environ: Mapping[str, str], datastore: str) -> tuple[str, ...]:
    ignored = [
        f"--{flag.name} ({flag.ignored})" for flag in FLAGS if flag.ignored and flag.name in given
    ]
    dsn = Dsn(datastore)
    if not is_server(dsn):
        names = [name for name in _TLS_FILES if given.text(name)]
        ignored += [f"--{name} (for a database server)" for name in names]
    if given.switch("skip-verify") and not (dsn.scheme == "mysql" and _has_tls(given)):
        ignored.append("--skip-verify (for MySQL with TLS files, as in kine)")
    if parameters := sqlite_parameters(datastore):
        ignored.append(f"{', '.join(parameters)} (byre sets up its file itself)")
    if environ.get(SCHEMA_MIGRATION):
        ignored.append(f"{SCHEMA_MIGRATION} (byre has tables of its own)")
    return tuple(ignored)


def _warnings(texts: Mapping[str, str | None], options: ServeOptions) -> tuple[str, ...]:
    warnings = []
    if Dsn(texts.get("endpoint") or "").has_password:
        warnings.append(
            "a password on the command line can be read by every local user; use KINE_ENDPOINT"
        )
    warnings += [
        f"{url} lets everybody on the network read and write everything, as kine's default does; "
        "give --listen-address=unix://PATH or 127.0.0.1:2379, or --server-cert-file, "
        "--server-key-file and --trusted-ca-file"
        for url in options.listen_client_urls
        if url.startswith("http:") and not is_loopback(url)
    ]
    return tuple(warnings)
