"""The options of ``python -m datastore serve``: etcd's names and meaning where etcd has them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from datastore.dsn import Access, Dsn, is_server, to_target
from datastore.shim.access import parse_access
from datastore.shim.auth_options import AuthSettings, parse_auth
from datastore.shim.gateway.front import Browsers
from datastore.shim.retention import Retention, parse_retention
from datastore.shim.timing import SlowSql
from datastore.shim.transport.api import TlsFiles
from datastore.shim.transport.certificates import find_fault

DEFAULT_NAME: Final = "default"
DEFAULT_QUOTA_BYTES: Final = 2 << 30
ENVIRONMENT_VARIABLE: Final = "BYRE_DATASTORE"
DEFAULT_TRANSPORT: Final = "http2"
TRANSPORTS: Final = ("http2", "grpcio")
LOG_LEVELS: Final = ("debug", "info", "warn", "error")

_SCHEMES: Final = ("http", "https", "unix", "unixs")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_UNITS: Final = {
    "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip


class BadOptions(Exception):
    """Options that cannot be served; all problems at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Keepalive(NamedTuple):
    """Seconds of HTTP/2 keepalive."""

    min_time: float = 5.0
    interval: float = 7200.0
    timeout: float = 20.0


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What to serve and how. The datastore's URL may hold a password: it is never shown."""

    datastore: str = field(repr=False)
    listen_client_urls: tuple[str, ...]
    access: Access = field(default_factory=Access)
    auth: AuthSettings = field(default_factory=AuthSettings)
    client_cert_auth: bool = False
    advertise_client_urls: tuple[str, ...] = ()
    listen_metrics_urls: tuple[str, ...] = ()
    name: str = DEFAULT_NAME
    position_file: Path | None = None
    tls: TlsFiles | None = None
    watch_progress_notify_seconds: float = 600.0
    max_txn_ops: int = 128
    max_request_bytes: int = 3 << 19
    max_concurrent_streams: int = 1 << 31
    quota_bytes: int = DEFAULT_QUOTA_BYTES
    auto_compaction: Retention | None = None
    min_lease_ttl: int = 2
    cache_bytes: int = 256 << 20
    keepalive: Keepalive = field(default_factory=Keepalive)
    grpc_gateway: bool = True
    browsers: Browsers = field(default_factory=Browsers)
    extensive_metrics: bool = False
    slow_sql: SlowSql | None = None
    version: str = ""
    """The etcd version to claim; empty for the one whose API this is."""
    log_level: str = "info"
    log_json: bool = False
    transport: str = DEFAULT_TRANSPORT

    @property
    def weakness(self) -> str:
        """What is wrong with how the database is reached; empty when nothing is."""
        dsn = Dsn(self.datastore)
        return to_target(dsn, self.access).weakness if is_server(dsn) else ""


class Parser:
    """Turns option texts into values and gathers what is wrong with them."""

    def __init__(self, texts: Mapping[str, str | None], environ: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self._texts = texts
        self._environ = environ

    def text(self, name: str, default: str = "") -> str:
        """Return an option as it was given."""
        value = self._texts.get(name)
        return default if value is None else value

    def number(self, name: str, default: int, least: int) -> int:
        """Return a whole number of at least `least`."""
        text = self.text(name, str(default))
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            self._wrong(name, text, f"a whole number of at least {least}")
            return default
        return value

    def duration(self, name: str, default: str, least: float = 0.0) -> float:
        """Return a Go duration in seconds."""
        text = self.text(name, default)
        seconds = to_seconds(text)
        if seconds is None or seconds < least:
            above = f" of at least {least:g}s" if least else ""
            self._wrong(name, text, f"a duration{above}, such as 200ms, 5s or 1h30m")
            return 0.0
        return seconds

    def boolean(self, name: str, default: str = "false") -> bool:
        """Return a switch: ``--x`` or ``--x=true``."""
        text = self.text(name, default)
        if text not in {"true", "false"}:
            self._wrong(name, text, "true or false")
        return text == "true"

    def choice(self, name: str, default: str, among: tuple[str, ...]) -> str:
        """Return one of a few words."""
        text = self.text(name, default)
        if text not in among:
            self._wrong(name, text, f"one of {', '.join(among)}")
        return text

    def names(self, name: str, default: str) -> frozenset[str]:
        """Return a list of names."""
        parts = (part.strip() for part in self.text(name, default).split(","))
        return frozenset(part for part in parts if part)

    def file(self, name: str) -> Path | None:
        """Return a file that can be read, or None where the option is absent."""
        text = self.text(name)
        if not text:
            return None
        path = Path(text)
        try:
            with path.open("rb"):
                return path
        except OSError as error:
            self.problems.append(f"--{name}: cannot read {text}: {_reason(error)}")
            return path

    def urls(self, name: str, default: str = "") -> tuple[str, ...]:
        """Return a list of URLs to listen on or to advertise."""
        urls = tuple(part.strip() for part in self.text(name, default).split(",") if part.strip())
        for url in urls:
            try:
                fault = _url_fault(url)
            except ValueError as error:
                fault = str(error)
            if fault:
                self._wrong(name, url, f"http(s)://host:port or unix(s):///path ({fault})")
        return urls

    def datastore(self) -> str:
        """Return the datastore's URL, from where it may hold a secret or from where it may not."""
        given, file = self.text("datastore"), self.text("datastore-file")
        inherited = self._environ.get(ENVIRONMENT_VARIABLE, "")
        if given and file:
            self.problems.append("--datastore and --datastore-file: give one of them")
        if given.startswith("fd:"):
            return self._read("datastore", lambda: _read_descriptor(given))
        if given:
            if Dsn(given).has_password:
                self.problems.append(
                    "--datastore: a password on the command line can be read by every local user; "
                    f"use --datastore-file, {ENVIRONMENT_VARIABLE} or fd:N"
                )
            return given
        if file:
            return self._read("datastore-file", lambda: Path(file).read_text("utf-8"))
        if not inherited:
            self.problems.append(
                "no datastore: give --datastore URL such as sqlite:///PATH, --datastore-file FILE "
                f"or the environment variable {ENVIRONMENT_VARIABLE}"
            )
        return inherited

    def _read(self, name: str, read: Callable[[], str]) -> str:
        try:
            text = read().strip()
        except (OSError, ValueError) as error:
            self.problems.append(f"--{name}: cannot be read: {_reason(error)}")
            return ""
        if not text:
            self.problems.append(f"--{name}: is empty, expected a datastore URL")
        return text

    def _wrong(self, name: str, text: str, expected: str) -> None:
        self.problems.append(f"--{name}: {text!r} is not {expected}")


def parse(texts: Mapping[str, str | None], environ: Mapping[str, str]) -> ServeOptions:
    """Return the options.

    Args:
        texts: Option name without dashes in front, to its text; None where absent.
        environ: The environment.

    Raises:
        BadOptions: with every problem found.
    """
    parser = Parser(texts, environ)
    listen = parser.urls("listen-client-urls", _default_listen())
    quota = parser.number("quota-backend-bytes", 0, -(1 << 63))
    datastore = parser.datastore()
    options = ServeOptions(
        datastore=datastore,
        access=parse_access(parser, environ, datastore),
        auth=parse_auth(parser),
        client_cert_auth=parser.boolean("client-cert-auth"),
        listen_client_urls=listen,
        advertise_client_urls=parser.urls("advertise-client-urls"),
        listen_metrics_urls=parser.urls("listen-metrics-urls"),
        name=parser.text("name", DEFAULT_NAME),
        position_file=_path(parser.text("position-file")),
        tls=_tls(parser),
        watch_progress_notify_seconds=parser.duration(
            "watch-progress-notify-interval", "10m", 0.1
        ),
        max_txn_ops=parser.number("max-txn-ops", 128, 1),
        max_request_bytes=parser.number("max-request-bytes", 3 << 19, 1),
        max_concurrent_streams=parser.number("max-concurrent-streams", 1 << 31, 1),
        quota_bytes=quota or _default_quota(datastore),
        auto_compaction=parse_retention(parser),
        min_lease_ttl=parser.number("min-lease-ttl", 2, 1),
        cache_bytes=parser.number("value-cache-bytes", 256 << 20, 0),
        keepalive=Keepalive(
            parser.duration("grpc-keepalive-min-time", "5s"),
            parser.duration("grpc-keepalive-interval", "2h", 1.0),
            parser.duration("grpc-keepalive-timeout", "20s", 1.0),
        ),
        grpc_gateway=parser.boolean("enable-grpc-gateway", "true"),
        browsers=Browsers(parser.names("cors", "*"), parser.names("host-whitelist", "*")),
        extensive_metrics=parser.choice("metrics", "basic", ("basic", "extensive")) == "extensive",
        log_level=parser.choice("log-level", "info", LOG_LEVELS),
        log_json=parser.choice("log-format", "console", ("console", "json")) == "json",
        transport=parser.choice("transport", DEFAULT_TRANSPORT, TRANSPORTS),
    )
    _check_exposure(parser, options)
    if parser.problems:
        raise BadOptions(parser.problems)
    return options


def _tls(parser: Parser) -> TlsFiles | None:
    cert, key = parser.file("cert-file"), parser.file("key-file")
    trusted = parser.file("trusted-ca-file")
    client_auth = parser.boolean("client-cert-auth")
    if (cert is None) != (key is None):
        parser.problems.append("--cert-file and --key-file: give both")
    if (client_auth or trusted) and cert is None:
        parser.problems.append("--client-cert-auth needs --cert-file and --key-file")
    if client_auth and trusted is None:
        parser.problems.append("--client-cert-auth needs --trusted-ca-file")
    if cert is None or key is None:
        return None
    # As in etcd, a trusted CA alone already makes client certificates mandatory.
    tls = TlsFiles(cert, key, trusted, require=trusted is not None)
    # A file that cannot be read has been told of already.
    with contextlib.suppress(OSError):
        if fault := find_fault(tls):
            parser.problems.append(f"--cert-file, --key-file, --trusted-ca-file: {fault}")
    return tls


def _check_exposure(parser: Parser, options: ServeOptions) -> None:
    if not options.listen_client_urls:
        parser.problems.append("--listen-client-urls: is empty")
    allowed = parser.boolean("allow-plaintext-tcp")
    for url in (*options.listen_client_urls, *options.listen_metrics_urls):
        scheme = url.partition(":")[0]
        if scheme in {"https", "unixs"} and options.tls is None:
            parser.problems.append(f"{url} needs --cert-file and --key-file")
    for url in options.listen_client_urls:
        if is_unspecified(url) and not options.advertise_client_urls:
            parser.problems.append(
                f"--listen-client-urls: {url} is every address of this machine: say with "
                "--advertise-client-urls which one clients can use"
            )
        if url.startswith("http:") and not is_loopback(url) and not allowed:
            parser.problems.append(
                f"--listen-client-urls: {url} would let everybody on the network read and write "
                "everything; use https with --client-cert-auth, or say --allow-plaintext-tcp"
            )


def is_loopback(url: str) -> bool:
    """Return whether only this machine can reach the URL."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_unspecified(url: str) -> bool:
    """Return whether the URL stands for all addresses: nobody can connect to it as it is."""
    try:
        return ip_address(urlsplit(url).hostname or "").is_unspecified
    except ValueError:
        return False


def to_seconds(text: str) -> float | None:
    """Return a Go duration in seconds, or None when it is none."""
    parts = _DURATION_PART.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not text:
        return 0.0 if text == "0" else None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _url_fault(url: str) -> str:
    """Return what is wrong with a URL, or nothing."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        return f"unknown scheme {parts.scheme!r}"
    if parts.scheme.startswith("unix"):
        return "" if parts.path.startswith("/") and not parts.netloc else "needs an absolute path"
    if not parts.hostname or parts.port is None:
        return "needs a host and a port"
    return "has a path" if parts.path.strip("/") else ""


def _read_descriptor(text: str) -> str:
    with os.fdopen(int(text.removeprefix("fd:")), encoding="utf-8") as stream:
        return stream.read()


def _default_quota(datastore: str) -> int:
    # Whoever runs a database server watches its space there, and others may use it too.
    return -1 if is_server(Dsn(datastore)) else DEFAULT_QUOTA_BYTES


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _default_listen() -> str:
    from datastore.paths import Paths

    return f"unix://{Paths.default().run_dir / 'datastore' / 'shim.sock'}"


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
