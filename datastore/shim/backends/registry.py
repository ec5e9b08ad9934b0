"""From a data source name to a backend; drivers are imported only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Final

from datastore.dsn import (
    Access,
    Dsn,
    Target,
    check_sqlite_parameters,
    is_server,
    sqlite_path,
    to_target,
)
from datastore.errors import UnusableDsn
from datastore.shim.backends.api import Backend, NotReady

SCHEMES: Final = ("sqlite", "postgresql", "mysql", "mariadb", "memory")
"""Every scheme that `connect` knows; postgres is another name of postgresql."""

_SERVERS: Final[Mapping[str, str]] = {
    "postgresql": "datastore.shim.backends.postgresql:PostgresqlBackend",
    "mysql": "datastore.shim.backends.mysql:MysqlBackend",
}


def connect(
    url: str,
    access: Access | None = None,
    base_dir: Path | None = None,
    *,
    syncs_beside: bool = False,
) -> Backend:
    """Return the backend of a data source name, not yet opened.

    The forms that are understood are those of datastore/dsn/; ``memory://`` is a store that ends
    with the process.

    Args:
        url: The data source name.
        access: What is said about a database server beside its name.
        base_dir: Where relative file names start; the working directory where None.
        syncs_beside: Whether who appends syncs `Appended.file` without a thread.

    Raises:
        NotReady: The scheme or the name is unusable; says which there are.
    """
    dsn = Dsn(url)
    try:
        if is_server(dsn):
            return _server(to_target(dsn, access))
        if dsn.scheme == "sqlite":
            from datastore.shim.backends.sqlite import SQLiteBackend

            check_sqlite_parameters(dsn)
            path = sqlite_path(dsn, base_dir or Path.cwd())
            return SQLiteBackend(path, syncs_beside=syncs_beside)
    except UnusableDsn as error:
        raise NotReady(str(error)) from error
    if dsn.scheme == "memory":
        from datastore.shim.backends.memory import MemoryBackend

        return MemoryBackend()
    known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    raise NotReady(f"cannot use {dsn}: the data source must begin with one of {known}")


def _server(target: Target) -> Backend:
    try:
        make: Callable[[Target], Backend] = resolve_name(_SERVERS[target.driver])
    except ImportError as error:
        raise NotReady(
            f"the driver for {target.driver} cannot be loaded: {error}; install byre again with "
            "its dependencies"
        ) from error
    return make(target)
