"""Upstream kine as a datastore, for comparison and for databases that byre does not speak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from datastore.dsn import Access, Dsn, sqlite_path
from datastore.endpoint import Endpoint
from datastore.errors import ConfigError, NotReady
from datastore.launch import EtcdProbe, ProcessSpec
from datastore.paths import make_directory, socket_url
from datastore.probe import probe
from datastore.registry import Binary, Request, taken_flags

PROCESS: Final = "kine"

VARIABLE: Final = "KINE_ENDPOINT"

_PRIVATE: Final = frozenset({"sqlite", "litestream", "memory"})
"""Schemes of stores that one controller has for itself."""

_TAKEN: Final = frozenset({"endpoint", "listen-address"})

# What kine 0.17 uses when it is left without a data source; one that it is given gets none.
_SQLITE_PARAMETERS: Final = (
    "_journal_mode=WAL&_busy_timeout=30000&_synchronous=NORMAL&_txlock=immediate"
    "&_stmt_cache_size=20&cache=shared"
)

_DEFAULTS: Final[Mapping[str, str]] = {
    # kine's own default serves metrics on every interface; 0 is off.
    "metrics-bind-address": "0",
    # kube-apiserver drives compaction.
    "compact-interval": "0",
}


@dataclass(frozen=True, slots=True)
class KineDatastore:
    """A kine process on a unix socket; the database is kine's business."""

    dsn: Dsn
    socket: Path
    data_dir: Path
    binary: Binary
    flags: Mapping[str, str] = field(default_factory=dict)
    kind: str = "kine"
    shared: bool = False
    binaries: Sequence[str] = ("kine",)

    @classmethod
    def from_request(cls, request: Request) -> Self:
        """Return the datastore of any data source that kine takes; raises DatastoreError."""
        problems = list(taken_flags(request.extra_args, _TAKEN, "spec.storage.kine"))
        if problems:
            raise ConfigError("spec.storage", problems)
        made = cls(
            dsn=_for_kine(request.dsn, request.paths.database_dir),
            socket=request.paths.datastore_run_dir / "kine.sock",
            data_dir=request.paths.database_dir,
            binary=request.binary,
            flags={**_DEFAULTS, **_tls_flags(request.access), **request.extra_args},
            # What kine itself advises its embedders.
            shared=request.dsn.scheme not in _PRIVATE,
        )
        socket_url(made.socket)
        return made

    @property
    def endpoint(self) -> Endpoint:
        """The unix socket of kine."""
        return Endpoint((socket_url(self.socket),))

    @property
    def place(self) -> str:
        """The data source without its password."""
        return str(self.dsn)

    def processes(self) -> Sequence[ProcessSpec]:
        """Return kine; its data source travels in the environment."""
        url = socket_url(self.socket)
        flags = [f"--{name}={value}" for name, value in self.flags.items()]
        return (
            ProcessSpec(
                name=PROCESS,
                argv=(str(self.binary("kine")), f"--listen-address={url}", *flags),
                secrets={VARIABLE: self.dsn.text},
                # kine makes ./db below it whatever its data source is.
                cwd=self.data_dir,
                readiness=EtcdProbe(url),
                liveness=EtcdProbe(url, timeout_seconds=10.0),
            ),
        )

    def prepare(self) -> None:
        """Make the directories of the socket and of a SQLite file."""
        make_directory(self.socket.parent)
        make_directory(self.data_dir)
        if self.dsn.scheme == "sqlite":
            parent = sqlite_path(self.dsn, self.data_dir).parent
            if not parent.exists():
                make_directory(parent)

    async def check(self) -> None:
        """Return when kine answers; raises NotReady."""
        try:
            await probe(EtcdProbe(socket_url(self.socket)))
        except NotReady as error:
            raise NotReady(
                f"kine over {self.dsn} does not answer: {error.reason}",
                f"byre status and byre logs {PROCESS} tell more",
            ) from error


def _tls_flags(access: Access) -> Mapping[str, str]:
    files = {"ca-file": access.ca, "cert-file": access.cert, "key-file": access.key}
    return {name: str(path) for name, path in files.items() if path}


def _for_kine(dsn: Dsn, data_dir: Path) -> Dsn:
    """Return a data source in kine's form; only SQLite differs between the two."""
    if dsn.scheme != "sqlite":
        return dsn
    _, asked, parameters = dsn.text.partition("?")
    file = sqlite_path(dsn, data_dir)
    return Dsn(f"sqlite://{file}?{parameters if asked else _SQLITE_PARAMETERS}")
