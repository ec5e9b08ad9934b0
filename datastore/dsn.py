"""Data source names: the three ways to write one, and a type that never shows a password.

| form | example |
|---|---|
| SQLAlchemy | ``sqlite+pysqlite:////var/lib/state.db``, ``postgresql+psycopg://u:p@host/db`` |
| kine | ``sqlite:///var/lib/state.db?_journal=WAL``, ``postgres://u:p@host/db`` |
| go-sql-driver | ``mysql://u:p@tcp(host:3306)/db`` |

``sqlite:///a/b.db`` is kine's absolute path /a/b.db and SQLAlchemy's relative one. Users of
`spec.storage.kine.dataSource` come from kine, so three slashes are absolute unless a driver
is named (``sqlite+pysqlite:///a/b.db``); relative names are below the data directory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from datastore.errors import UnusableDsn

HIDDEN: Final = "***"

_SECRET_PARAMETER: Final = re.compile(
    r"((?:^|[?&;\s])[^=?&;\s]*(?:pass(?:word|wd|phrase)?|pwd|secret|token|access.?key)=)[^&\s]*",
    re.IGNORECASE,
)
_TOKEN_SCHEMES: Final = ("nats://", "jetstream://")
_SCHEME: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", re.ASCII)

# Parameters of the Go and the Python driver. byre sets journal, durability and locking itself,
# at least as strict as any of these ask for, so they are understood and need nothing.
_SETTLED: Final = frozenset({
    "_journal", "_journal_mode", "_busy_timeout", "_timeout", "_synchronous", "_sync", "_txlock",
    "_stmt_cache_size", "_foreign_keys", "_fk", "cache", "uri", "timeout", "check_same_thread",
    "_kine_disable_compact_wal_checkpoint", "_kine_disable_wal_autocheckpoint",
    "_kine_disable_startup_vacuum",
})  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class Dsn:
    """A data source name; `text` is the secret, everything printable is redacted."""

    text: str

    @property
    def scheme(self) -> str:
        """The URL scheme in lower case without a driver: ``postgresql``; empty when none."""
        found = _SCHEME.match(self.text)
        return found[1].lower().partition("+")[0] if found else ""

    @property
    def has_password(self) -> bool:
        """Whether redaction hides anything."""
        return redact(self.text) != self.text

    def __str__(self) -> str:
        return redact(self.text)

    def __repr__(self) -> str:
        return f"Dsn({redact(self.text)!r})"


def redact(text: str) -> str:
    """Return `text` with passwords of URLs, DSNs and secret parameters hidden.

    Rather too much is hidden than too little: a password may hold any character, so it is
    taken to end at the last @. What does not look like a DSN is returned as it is.
    """
    text = _SECRET_PARAMETER.sub(rf"\1{HIDDEN}", text)
    found = _SCHEME.match(text)
    scheme = found[0] if found else ""
    credentials, at, location = text[len(scheme) :].rpartition("@")
    if not at or not (scheme or "(" in location):
        return text
    user, colon, _ = credentials.partition(":")
    if colon or scheme in _TOKEN_SCHEMES:
        credentials = f"{user}:{HIDDEN}" if colon else HIDDEN
    return f"{scheme}{credentials}@{location}"


def sqlite_path(dsn: Dsn, data_dir: Path) -> Path:
    """Return the file of a SQLite data source; a relative name is below `data_dir`.

    Raises UnusableDsn for what is not a durable file that byre can write.
    """
    found = _SCHEME.match(dsn.text)
    if dsn.scheme != "sqlite" or not found:
        raise UnusableDsn(f"{dsn} is not a SQLite data source")
    name, _, query = dsn.text[found.end() :].partition("?")
    _check_parameters(query)
    if "+" in found[1]:
        name = name.removeprefix("/")
    name = unquote(name.removeprefix("/file:").removeprefix("file:"))
    if not name or name in {"/", ":memory:", "/:memory:"}:
        raise UnusableDsn(
            f"{dsn} names no file, and a cluster in memory is lost at every restart; "
            "write sqlite:///absolute/path.db"
        )
    path = Path(name)
    if name.startswith("/"):
        path = Path("/", *path.parts[1:])
        if path.parent == Path("/"):
            raise UnusableDsn(
                f"{dsn} is {path} in the root directory; write sqlite://{path.name} for a file "
                "below the data directory or sqlite:///absolute/path.db"
            )
    return data_dir / path


def _check_parameters(query: str) -> None:
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key == "mode":
            if value not in {"rwc", "rw"}:
                raise UnusableDsn(f"mode={value} does not suit a store; leave it out or use rwc")
        elif key not in _SETTLED:
            raise UnusableDsn(f"byre does not know the SQLite parameter {key}; leave it out")
