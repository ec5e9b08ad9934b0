"""The command ``kine``: starts the shim wherever a script starts kine."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable
from itertools import groupby
from typing import Final

import click

from datastore.kinecli.endpoint import DEFAULT_FILE
from datastore.kinecli.flags import FLAGS, IGNORED, MEANT, SWITCH
from datastore.serving import EXIT_STORE, prepare, refuse, run

PATIENCE_SECONDS: Final = 300.0
"""How long kine tries to reach its database when it starts."""

_SINGLE_DASH: Final = re.compile(r"-[a-z][a-z0-9-]+(=.*)?", re.DOTALL)


class KineCommand(click.Command):
    """A command that takes ``-flag`` for ``--flag``, as Go's flag package does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        given = [f"-{text}" if _SINGLE_DASH.fullmatch(text) else text for text in args]
        return super().parse_args(ctx, given)


def _epilog() -> str:
    """Tell what is accepted and means nothing, and why."""
    lines = ["\b", "Accepted, named in the log, and without a meaning here:"]
    for reason, flags in groupby(IGNORED, key=lambda flag: flag.ignored):
        names = [f"--{flag.name}" for flag in flags]
        lines += [f"  {reason}:", *(f"    {name}" for name in names)]
    return "\n".join(lines)


def _options() -> Iterable[click.Option]:
    for flag in FLAGS:
        default = f" [{flag.default}]" if flag.default and flag.metavar != SWITCH else ""
        yield click.Option(
            [f"--{flag.name}"],
            metavar=flag.metavar,
            # As in Go, both `--x` and `--x=true`.
            is_flag=False,
            flag_value="true" if flag.metavar == SWITCH else None,
            help=f"{flag.help}{default}  [{flag.variable}]",
            hidden=flag not in MEANT,
        )


def _kine(**texts: str | None) -> None:
    """Serve in kine's place: the same flags, the same KINE_* variables, another store.

    byre keeps tables of its own (byre_*) and does not take over what kine has stored: a database
    with kine's rows is refused. Unlike kine it takes every request of etcd v3, answers health
    on the port of the metrics, and goes on compacting for clients that ask while
    --compact-interval is set.
    """
    prepare()
    from datastore.kinecli.options import parse_kine
    from datastore.shim.logs import set_up
    from datastore.shim.options import BadOptions

    named = {name.replace("_", "-"): text for name, text in texts.items()}
    try:
        asked = parse_kine(named, os.environ)
    except BadOptions as error:
        refuse(error)
    os.environ.pop("KINE_ENDPOINT", None)  # may hold a password
    set_up(asked.options.log_level, as_json=asked.options.log_json)
    log = logging.getLogger(__name__)
    for warning in asked.warnings:
        log.warning("%s", warning)
    if asked.ignored:
        log.info("accepted in kine's place and ignored", extra={"what": "; ".join(asked.ignored)})
    if asked.makes_directory:
        _make_directory(log)
    sys.exit(run(asked.options, PATIENCE_SECONDS))


def _make_directory(log: logging.Logger) -> None:
    try:
        DEFAULT_FILE.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        log.error("cannot make the directory %s: %s", DEFAULT_FILE.parent, error.strerror)  # noqa: TRY400
        sys.exit(EXIT_STORE)


_version = click.version_option(
    None, "-v", "--version", package_name="byre", message="byre %(version)s in kine's place"
)
kine: Final = _version(
    KineCommand(
        "kine",
        callback=_kine,
        params=list(_options()),
        help=_kine.__doc__,
        epilog=_epilog(),
        context_settings={"help_option_names": ["-h", "--help"]},
    )
)
