"""From the storage part of a configuration to a datastore: the one place that chooses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from datastore.dsn import Dsn
from datastore.errors import UnusableDsn, UnusablePath
from datastore.etcd.external import ExternalEtcd
from datastore.etcd.managed import ManagedEtcd
from datastore.kine import KineDatastore
from datastore.paths import Paths
from datastore.registry import Binary, Datastore, Request, factory
from datastore.schema import Config, Kine
from datastore.sql import VARIABLE

DEFAULT_FILE: Final = "state.db"
KINE_FILE: Final = "kine.db"
"""kine and the shim have different tables: neither may find the other's file by default."""


def resolve(
    config: Config,
    paths: Paths,
    *,
    binary: Binary = Path,
    environ: Mapping[str, str] = os.environ,
) -> Datastore:
    """Return the datastore that a configuration asks for; nothing is made or started.

    Args:
        config: The configuration.
        paths: Where this byre keeps its files.
        binary: Finds the program of a name, for the names in the datastore's `binaries`.
        environ: Where the data source is taken from when the configuration has none.

    Raises:
        DatastoreError: The data source cannot be used.
    """
    storage = config.spec.storage
    if storage.type == "etcd":
        if storage.etcd.external_cluster:
            return ExternalEtcd.from_config(storage.etcd.external_cluster)
        return ManagedEtcd.from_config(storage.etcd, paths, binary)
    dsn = _data_source(storage.kine, paths, environ)
    request = Request(dsn, paths, binary, storage.kine.extra_args)
    if storage.kine.binary:
        return KineDatastore.from_request(request)
    return factory(dsn.scheme)(request)


def _data_source(kine: Kine, paths: Paths, environ: Mapping[str, str]) -> Dsn:
    if kine.data_source:
        return kine.data_source
    if kine.data_source_file:
        return _from_file(kine.data_source_file)
    if environ.get(VARIABLE):
        return _checked(Dsn(environ[VARIABLE].strip()), f"environment variable {VARIABLE}")
    file = KINE_FILE if kine.binary else DEFAULT_FILE
    return Dsn(f"sqlite://{paths.database_dir / file}")


def _from_file(path: Path) -> Dsn:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UnusablePath(path, f"{reason or error}".lower()) from None
    if "\n" in text:
        raise UnusablePath(path, "must hold one data source on one line")
    return _checked(Dsn(text), f"dataSourceFile {path}")


def _checked(dsn: Dsn, source: str) -> Dsn:
    if not dsn.scheme:
        raise UnusableDsn(f"{source}: must hold a URL such as sqlite:///var/lib/byre/db/state.db")
    return dsn
