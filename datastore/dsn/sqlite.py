"""The file that a SQLite data source names.

``sqlite:///a/b.db`` is kine's absolute path /a/b.db and SQLAlchemy's relative one. Users of
`spec.storage.kine.dataSource` come from kine, so three slashes are absolute unless a driver
is named (``sqlite+pysqlite:///a/b.db``); relative names are below the data directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

from datastore.dsn.names import did_you_mean
from datastore.dsn.text import SCHEME, Dsn
from datastore.errors import UnusableDsn

# Parameters of the Go and the Python driver. byre sets journal, durability and locking itself,
# at least as strict as any of these ask for, so they are understood and need nothing.
_SETTLED: Final = frozenset({
    "_journal", "_journal_mode", "_busy_timeout", "_timeout", "_synchronous", "_sync", "_txlock",
    "_stmt_cache_size", "_foreign_keys", "_fk", "cache", "uri", "timeout", "check_same_thread",
    "_kine_disable_compact_wal_checkpoint", "_kine_disable_wal_autocheckpoint",
    "_kine_disable_startup_vacuum",
})  # fmt: skip


def sqlite_path(dsn: Dsn, data_dir: Path) -> Path:
    """Return the file of a SQLite data source; a relative name is below `data_dir`.

    Raises UnusableDsn for what is not a durable file. Parameters are not looked at.
    """
    found = SCHEME.match(dsn.text)
    if dsn.scheme != "sqlite" or not found:
        raise UnusableDsn(f"{dsn} is not a SQLite data source")
    name = dsn.rest.partition("?")[0]
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


def check_sqlite_parameters(dsn: Dsn) -> None:
    """Refuse parameters of a SQLite data source that byre cannot honour; raises UnusableDsn."""
    for key, value in parse_qsl(dsn.rest.partition("?")[2], keep_blank_values=True):
        if key == "mode":
            if value not in {"rwc", "rw"}:
                raise UnusableDsn(f"mode={value} does not suit a store; leave it out or use rwc")
        elif key not in _SETTLED:
            raise UnusableDsn(
                f"byre does not know the SQLite parameter {key}{did_you_mean(key, _SETTLED)}"
            )
