"""kine's flags (v0.17.5, pkg/app/app.go): what each means here, or why it means nothing."""

from __future__ import annotations

from typing import Final, NamedTuple

SWITCH: Final = "[BOOL]"


class Flag(NamedTuple):
    """One of kine's flags; its variable is KINE_ and its name.

    Attributes:
        name: Without dashes in front.
        metavar: What its value is; `SWITCH` where it needs none.
        help: What it does here.
        default: kine's own.
        ignored: Why it means nothing here; empty where it does.
    """

    name: str
    metavar: str
    help: str = ""
    default: str = ""
    ignored: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that stands for it."""
        return f"KINE_{self.name.upper().replace('-', '_')}"


def _ignored(reason: str, *names: str) -> tuple[Flag, ...]:
    return tuple(Flag(name, "TEXT", ignored=reason) for name in names)


MEANT: Final = (
    Flag("listen-address", "ADDRESS", "Where to serve: HOST:PORT or unix://PATH.", "0.0.0.0:2379"),
    Flag(
        "endpoint",
        "URL",
        "sqlite://, postgres:// or mysql://, in kine's forms; none is a file ./db/state.db.",
    ),
    Flag("ca-file", "FILE", "Authority of the database's certificate, which is verified."),
    Flag("cert-file", "FILE", "Client certificate for the database."),
    Flag("key-file", "FILE", "Key of that certificate."),
    Flag("skip-verify", SWITCH, "MySQL: take any certificate of the database.", "false"),
    Flag("log-format", "FORMAT", "plain or json.", "plain"),
    Flag(
        "metrics-bind-address",
        "ADDRESS",
        "Where to serve /metrics and health; 0 is nowhere.",
        ":8080",
    ),
    Flag("server-cert-file", "FILE", "Certificate of this server."),
    Flag("server-key-file", "FILE", "Key of this server."),
    Flag("trusted-ca-file", "FILE", "CA of the clients' certificates, which are mandatory then."),
    Flag("metrics-ignore-tls-config", SWITCH, "Serve metrics in plain text beside TLS.", "false"),
    Flag("slow-sql-threshold", "DURATION", "SQL that takes longer is logged; 0 is none.", "1s"),
    Flag("slow-sql-warning-threshold", "DURATION", "SQL that takes longer is warned of.", "5s"),
    Flag("watch-progress-notify-interval", "DURATION", "Between progress notifications.", "5s"),
    Flag(
        "emulated-etcd-version", "VERSION", "The etcd version to claim. [byre's own, not kine's]"
    ),
    Flag(
        "compact-interval",
        "DURATION",
        "Compact by itself, this often; 0 leaves it to clients.",
        "0s",
    ),
    Flag("compact-min-retain", "N", "Revisions that compacting by itself keeps.", "1000"),
    Flag("debug", SWITCH, "Log more.", "false"),
)
IGNORED: Final = (
    *_ignored("byre has a fixed handful of connections",
        "datastore-max-idle-connections", "datastore-max-open-connections",
        "datastore-connection-max-lifetime", "datastore-connection-max-idle-time"),
    *_ignored("servers tell each other of commits", "datastore-poll-interval", "poll-batch-size"),
    Flag("metrics-enable-profiling", SWITCH, ignored="there is no Go to profile"),
    *_ignored("compaction takes one small commit", "compact-interval-jitter", "compact-timeout",
        "compact-batch-size"),
    *_ignored("is for kine's t4 driver", "peer-bind-address", "peer-advertise-address",
        "s3-bucket", "s3-folder", "s3-endpoint", "s3-region", "s3-access-key", "s3-secret-key",
        "s3-session-token", "s3-profile", "s3-ca-bundle"),
)  # fmt: skip
FLAGS: Final = (*MEANT, *IGNORED)

SCHEMA_MIGRATION: Final = "KINE_SCHEMA_MIGRATION"
"""Asks kine to change its own tables."""
