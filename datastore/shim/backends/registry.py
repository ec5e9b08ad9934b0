"""From a data source name to a backend; drivers are imported only when they are asked for."""

from __future__ import annotations

from pathlib import Path

from datastore.dsn import Dsn, sqlite_path
from datastore.errors import UnusableDsn
from datastore.shim.backends.api import Backend, NotReady

SCHEMES = ("sqlite", "memory")
"""Every scheme that `connect` knows."""


def connect(url: str, base_dir: Path | None = None) -> Backend:
    """Return the backend of a data source name, not yet opened.

    ``sqlite:///var/lib/state.db`` and kine's parameters are understood as datastore/dsn.py says;
    ``memory://`` is a store that ends with the process.

    Args:
        url: The data source name.
        base_dir: Where relative file names start; the working directory where None.

    Raises:
        NotReady: The scheme or the name is unusable; says which there are.
    """
    dsn = Dsn(url)
    if dsn.scheme == "sqlite":
        from datastore.shim.backends.sqlite import SQLiteBackend

        try:
            return SQLiteBackend(sqlite_path(dsn, base_dir or Path.cwd()))
        except UnusableDsn as error:
            raise NotReady(str(error)) from error
    if dsn.scheme == "memory":
        from datastore.shim.backends.memory import MemoryBackend

        return MemoryBackend()
    known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    raise NotReady(f"cannot use {dsn}: the data source must begin with one of {known}")
