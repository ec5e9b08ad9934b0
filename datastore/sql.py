"""The SQL shim over SQLite as a datastore: byre's own etcd server beside a database file."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import datastore
from datastore.dsn import sqlite_path
from datastore.endpoint import Endpoint
from datastore.errors import ConfigError, NotReady, UnusablePath
from datastore.launch import EtcdProbe, HttpProbe, ProcessSpec
from datastore.paths import make_directory, socket_url
from datastore.probe import probe
from datastore.registry import Request, taken_flags

PROCESS: Final = "datastore"

VARIABLE: Final = "BYRE_DATASTORE"
"""The environment variable that takes the data source to the shim; argv never holds it."""

_TAKEN: Final = frozenset({
    "datastore", "datastore-file", "listen-client-urls", "advertise-client-urls",
    "listen-metrics-urls",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class SqliteDatastore:
    """A SQLite file served by the shim on a unix socket that only this user can reach."""

    file: Path
    socket: Path
    http_socket: Path
    flags: Mapping[str, str] = field(default_factory=dict)
    kind: str = "sqlite"
    binaries: Sequence[str] = ()

    @classmethod
    def from_request(cls, request: Request) -> Self:
        """Return the datastore of a ``sqlite://`` data source; raises DatastoreError."""
        run_dir = request.paths.datastore_run_dir
        problems = list(taken_flags(request.extra_args, _TAKEN, "spec.storage.kine"))
        if problems:
            raise ConfigError("spec.storage", problems)
        made = cls(
            file=sqlite_path(request.dsn, request.paths.database_dir),
            socket=run_dir / "shim.sock",
            http_socket=run_dir / "http.sock",
            flags=request.extra_args,
        )
        socket_url(made.socket)
        return made

    @property
    def endpoint(self) -> Endpoint:
        """The shim's unix socket."""
        return Endpoint((socket_url(self.socket),))

    def processes(self) -> Sequence[ProcessSpec]:
        """Return the shim; its data source travels in the environment."""
        url = socket_url(self.socket)
        flags = [
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-metrics-urls={socket_url(self.http_socket)}",
            *(f"--{name}={value}" for name, value in self.flags.items()),
        ]
        return (
            ProcessSpec(
                name=PROCESS,
                argv=(*_interpreter(), "-m", "datastore", "serve", *flags),
                environment=_import_path(),
                secrets={VARIABLE: f"sqlite:///{self.file}"},
                readiness=EtcdProbe(url),
                # The index of a large store is read into memory first.
                ready_seconds=300.0,
                # Readiness asks the database; liveness only whether the process still turns.
                liveness=HttpProbe(
                    "http://localhost/livez", timeout_seconds=10.0, unix=self.http_socket
                ),
            ),
        )

    def prepare(self) -> None:
        """Make the directories of the database and the sockets, private to this user."""
        make_directory(self.socket.parent)
        if self.file.parent.exists():
            # A directory of the user's own choice keeps its mode.
            _require_usable(self.file)
        else:
            make_directory(self.file.parent)

    async def check(self) -> None:
        """Return when the shim answers a linearizable read; raises NotReady."""
        try:
            await probe(EtcdProbe(socket_url(self.socket)))
        except NotReady as error:
            raise NotReady(
                f"the server of {self.file} does not answer: {error.reason}",
                f"byre status and byre logs {PROCESS} tell more",
            ) from error


def _interpreter() -> Sequence[str]:
    # -P: the working directory of byre must not provide modules.
    return (sys.executable, "-P")


def _import_path() -> Mapping[str, str]:
    """Return what lets the child import this package when it runs from a checkout."""
    root = str(Path(datastore.__file__).resolve().parents[1])
    installed = {
        *site.getsitepackages(),
        site.getusersitepackages(),
        sysconfig.get_path("purelib"),
    }
    return {} if root in installed else {"PYTHONPATH": root}


def _require_usable(file: Path) -> None:
    if not file.parent.is_dir():
        raise UnusablePath(file.parent, "it is not a directory")
    if file.is_dir():
        raise UnusablePath(file, "it is a directory; name a file")
    make_directory(file.parent, file.parent.stat().st_mode & 0o777)
    for path in (file, file.with_name(f"{file.name}-wal")):
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise UnusablePath(path, "not writable for this user; change its owner or mode")
