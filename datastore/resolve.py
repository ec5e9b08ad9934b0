"""From the storage part of a configuration to a datastore: the one place that chooses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from datastore.account import choose_user
from datastore.dsn import Access, Dsn, TlsMode
from datastore.dsn.password import Password, PasswordCommand, PasswordFile, PasswordVariable
from datastore.errors import UnusableDsn, UnusablePath
from datastore.etcd.external import ExternalEtcd
from datastore.etcd.managed import ManagedEtcd
from datastore.kine import KineDatastore
from datastore.paths import Paths
from datastore.registry import Binary, Datastore, Request, factory
from datastore.schema import SERVER_KEYS, Config, Kine
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
    request = Request(
        _data_source(storage.kine, paths, environ),
        paths,
        binary,
        storage.kine.extra_args,
        access=_access(storage.kine, environ),
        server_keys=_server_keys(storage.kine),
        user=choose_user(config.spec.install_config.users.kine_user),
    )
    if storage.kine.binary:
        return KineDatastore.from_request(request)
    return factory(request.dsn.scheme)(request)


def _data_source(kine: Kine, paths: Paths, environ: Mapping[str, str]) -> Dsn:
    if kine.data_source:
        return kine.data_source
    if kine.data_source_file:
        return _from_file(kine.data_source_file)
    if environ.get(VARIABLE):
        return _checked(Dsn(environ[VARIABLE].strip()), f"environment variable {VARIABLE}")
    file = KINE_FILE if kine.binary else DEFAULT_FILE
    return Dsn(f"sqlite://{paths.database_dir / file}")


def _access(kine: Kine, environ: Mapping[str, str]) -> Access:
    return Access(
        prefix=kine.prefix or "",
        schema=kine.schema_name or "",
        ca=kine.ca_file,
        cert=kine.client_cert_file,
        key=kine.client_key_file,
        tls_mode=TlsMode(kine.tls_mode) if kine.tls_mode else None,
        password=_password(kine, environ),
        listen=kine.listen_data_source,
    )


def _password(kine: Kine, environ: Mapping[str, str]) -> Password | None:
    if kine.password_file:
        return PasswordFile(kine.password_file)
    if kine.password_env:
        return PasswordVariable(kine.password_env, environ.get(kine.password_env))
    return PasswordCommand(kine.password_command) if kine.password_command else None


def _server_keys(kine: Kine) -> Sequence[str]:
    keys = {info.alias: name for name, info in Kine.model_fields.items()}
    return [key for key in SERVER_KEYS if getattr(kine, keys[key]) is not None]


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
