"""The command line of the datastore: ``python -m datastore serve``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from datastore.kinecli.command import kine
from datastore.serving import EXIT_STORE, prepare, refuse, run
from datastore.shim.access import OPTIONS as ACCESS_OPTIONS

Command = TypeVar("Command", bound=Callable[..., Any])

_SOURCE_OPTIONS: Final = (
    (
        "datastore",
        "URL",
        "sqlite:///PATH, postgresql://…, mysql://…, or fd:N to read the URL from a descriptor.",
    ),
    ("datastore-file", "FILE", "File that holds the URL of the datastore."),
    *ACCESS_OPTIONS,
    ("position-file", "FILE", "Records what was served, so that a lost tail is noticed."),
)
_OPTIONS: Final = (
    *_SOURCE_OPTIONS,
    ("listen-client-urls", "URLS", "Where to serve: http(s)://HOST:PORT, unix(s):///PATH."),
    ("advertise-client-urls", "URLS", "What the member list tells clients. [as listened on]"),
    (
        "listen-metrics-urls",
        "URLS",
        "Where to serve /health, /livez, /readyz, /version, /metrics.",
    ),
    ("name", "NAME", "Name of this member. [default, or on a network database the host's]"),
    ("cert-file", "FILE", "Certificate of the server (PEM)."),
    ("key-file", "FILE", "Key of the server (PEM)."),
    ("trusted-ca-file", "FILE", "CA of the clients' certificates, which are mandatory then."),
    ("watch-progress-notify-interval", "DURATION", "Between progress notifications. [10m]"),
    ("max-txn-ops", "N", "Most operations in a transaction. [128]"),
    ("max-request-bytes", "N", "Largest write. [1572864]"),
    ("max-concurrent-streams", "N", "Most streams of a connection."),
    (
        "quota-backend-bytes",
        "N",
        "Size at which writes are refused; -1 is none. [2 GiB, or none on a database server]",
    ),
    (
        "auto-compaction-mode",
        "MODE",
        "What --auto-compaction-retention counts: periodic, or revision. [periodic]",
    ),
    (
        "auto-compaction-retention",
        "KEPT",
        "History to keep: hours, a duration such as 30m, or revisions; 0 is all of it. [0]",
    ),
    (
        "auth-token",
        "KIND",
        "simple, or jwt,sign-method=METHOD,priv-key=FILE,pub-key=FILE,ttl=DURATION. [simple]",
    ),
    ("auth-token-ttl", "SECONDS", "Life of a simple token after its last use. [300]"),
    ("bcrypt-cost", "N", "Cost of the hash of a new password, 4 to 31. [10]"),
    ("min-lease-ttl", "SECONDS", "Shortest lease. [2]"),
    ("value-cache-bytes", "N", "Bytes of values kept in memory. [268435456]"),
    ("grpc-keepalive-min-time", "DURATION", "Shortest interval of a client's pings. [5s]"),
    ("grpc-keepalive-interval", "DURATION", "Between the server's pings. [2h]"),
    ("grpc-keepalive-timeout", "DURATION", "Until a ping without answer ends a connection. [20s]"),
    ("cors", "ORIGINS", "Sites whose pages may use HTTP here, comma-separated. [*]"),
    ("host-whitelist", "NAMES", "Host names of plain HTTP requests, against DNS rebinding. [*]"),
    ("transport", "NAME", "What speaks gRPC: http2 (of our own) or grpcio (grpc.aio). [http2]"),
    ("metrics", "KIND", "basic, or extensive with the time that each call took. [basic]"),
    ("log-level", "LEVEL", "debug, info, warn or error. [info]"),
    ("log-format", "FORMAT", "console or json. [console]"),
)
_SWITCHES: Final = (
    ("enable-grpc-gateway", "Serve the JSON gateway, /v3/*, on client URLs. [true]"),
    ("client-cert-auth", "Clients must have a certificate of the trusted CA."),
    ("allow-plaintext-tcp", "Serve plain text off loopback: everybody can read everything."),
)


def _with_options(command: Command) -> Command:
    for name, help_text in reversed(_SWITCHES):
        # As in Go, both `--x` and `--x=true`.
        command = click.option(
            f"--{name}", is_flag=False, flag_value="true", metavar="[BOOL]", help=help_text
        )(command)
    return _with(*_OPTIONS)(command)


def _with(*options: tuple[str, str, str]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for name, metavar, help_text in reversed(options):
            command = click.option(f"--{name}", metavar=metavar, help=help_text)(command)
        return command

    return add


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Serve a SQL database as an etcd v3 cluster of one member."""


@main.command()
@_with_options
def serve(**texts: str | None) -> None:
    """Serve one datastore until SIGTERM or SIGINT.

    The datastore's URL comes from --datastore, --datastore-file or the environment variable
    BYRE_DATASTORE; one with a password must not be given on the command line.
    --datastore-listen has BYRE_DATASTORE_LISTEN for the same reason.
    """
    prepare()
    from datastore.shim.access import LISTEN_VARIABLE
    from datastore.shim.logs import set_up
    from datastore.shim.options import ENVIRONMENT_VARIABLE, BadOptions, parse

    named = {name.replace("_", "-"): text for name, text in texts.items()}
    try:
        options = parse(named, os.environ)
    except BadOptions as error:
        refuse(error)
    for secret in (ENVIRONMENT_VARIABLE, LISTEN_VARIABLE, named["datastore-password-env"]):
        os.environ.pop(secret or "", None)
    set_up(options.log_level, as_json=options.log_json)
    sys.exit(run(options))


@main.command()
@click.argument("url", default="http://127.0.0.1:2381/readyz")
def health(url: str) -> None:
    """Ask URL, a /readyz of --listen-metrics-urls, and end with 0 when it is ready, else with 1.

    For health checks of containers, which have no other HTTP client.
    """
    from datastore.errors import NotReady
    from datastore.healthcheck import check_ready

    try:
        check_ready(url)
    except NotReady as error:
        click.echo(error, err=True)
        sys.exit(1)


@main.command("accept-loss")
@_with(*_SOURCE_OPTIONS)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def accept_loss(*, yes: bool, **texts: str | None) -> None:
    """Accept that the database has lost commits that were served, and serve what it has.

    For a datastore that is refused because a replica that lagged was promoted or a backup was
    restored. The revision jumps far ahead, so that every client reads everything anew. Options
    are those of `serve`; give --position-file as there. Run it once, for all servers.
    """
    from datastore.acceptance import accept
    from datastore.errors import NotReady
    from datastore.shim.options import BadOptions, parse

    named = {name.replace("_", "-"): text for name, text in texts.items()}
    try:
        options = parse(named, os.environ)
        confirmed = accept(
            options.datastore,
            options.access,
            options.position_file,
            tell=click.echo,
            confirm=(lambda _: True) if yes else click.confirm,
        )
    except BadOptions as error:
        refuse(error)
    except NotReady as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_STORE)
    sys.exit(0 if confirmed else 1)


main.add_command(kine)
