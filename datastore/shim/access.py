"""The options that say how a database server is reached, beside its URL."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from datastore.dsn import Access, Dsn, TlsMode, is_server, to_target
from datastore.dsn.password import Password, PasswordCommand, PasswordFile, PasswordVariable
from datastore.errors import UnusableDsn

if TYPE_CHECKING:
    from datastore.shim.options import Parser

LISTEN_VARIABLE: Final = "BYRE_DATASTORE_LISTEN"

OPTIONS: Final = (
    ("datastore-listen", "URL", "PostgreSQL behind a pooler: where to LISTEN directly."),
    ("datastore-prefix", "NAME", "What the names of the tables begin with. [byre_]"),
    ("datastore-schema", "NAME", "PostgreSQL: the schema of the tables. [public]"),
    ("datastore-ca-file", "FILE", "Authority of the database's certificate, which is verified."),
    ("datastore-cert-file", "FILE", "Client certificate for the database (PEM)."),
    ("datastore-key-file", "FILE", "Key of that certificate (PEM)."),
    ("datastore-tls-mode", "MODE", f"{', '.join(TlsMode)}. [verify-full with a CA, or prefer]"),
    ("datastore-password-file", "FILE", "Holds the password; read for each new connection."),
    ("datastore-password-env", "NAME", "The environment variable that holds the password."),
    (
        "datastore-password-command",
        "COMMAND",
        "Prints the password; run for each new connection.",
    ),
)
"""Name, metavariable and help of each option."""


def parse_access(parser: Parser, environ: Mapping[str, str], url: str) -> Access:
    """Return what the options say about the database of `url`; problems go to the parser."""
    mode = parser.text("datastore-tls-mode")
    if mode:
        mode = parser.choice("datastore-tls-mode", mode, tuple(TlsMode))
    access = Access(
        prefix=parser.text("datastore-prefix"),
        schema=parser.text("datastore-schema"),
        ca=parser.file("datastore-ca-file"),
        cert=parser.file("datastore-cert-file"),
        key=parser.file("datastore-key-file"),
        tls_mode=TlsMode(mode) if mode in set(TlsMode) else None,
        password=_password(parser, environ),
        listen=_listen(parser, environ),
    )
    dsn = Dsn(url)
    if not is_server(dsn):
        given = [name for name, _, _ in OPTIONS if parser.text(name)]
        if given and dsn.scheme:
            options = ", ".join(f"--{name}" for name in given)
            parser.problems.append(f"{options}: of use with a database server only, not {dsn}")
    elif not parser.problems:
        try:
            to_target(dsn, access)
        except UnusableDsn as error:
            parser.problems.append(f"the datastore: {error}")
    return access


def _password(parser: Parser, environ: Mapping[str, str]) -> Password | None:
    file = parser.file("datastore-password-file")
    name = parser.text("datastore-password-env")
    command = parser.text("datastore-password-command")
    given = [option for option, _, _ in OPTIONS if "-password-" in option and parser.text(option)]
    if len(given) > 1:
        parser.problems.append(f"{', '.join(f'--{option}' for option in given)}: give one of them")
    if command:
        return _command(parser, command)
    if not name:
        return PasswordFile(file) if file else None
    if not environ.get(name):
        parser.problems.append(f"--datastore-password-env: {name} is not in the environment")
    return PasswordVariable(name, environ.get(name))


def _command(parser: Parser, command: str) -> Password | None:
    try:
        argv = shlex.split(command)
    except ValueError as error:
        parser.problems.append(f"--datastore-password-command: {str(error).lower()}")
        return None
    return PasswordCommand(tuple(argv)) if argv else None


def _listen(parser: Parser, environ: Mapping[str, str]) -> Dsn | None:
    given = Dsn(parser.text("datastore-listen"))
    if given.has_password:
        parser.problems.append(
            "--datastore-listen: a password on the command line can be read by every local user; "
            f"use {LISTEN_VARIABLE}"
        )
    text = given.text or environ.get(LISTEN_VARIABLE, "").strip()
    return Dsn(text) if text else None
