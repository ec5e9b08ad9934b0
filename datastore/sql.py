"""The SQL shim as a datastore: byre's own etcd server beside a database file or server."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import site
import socket
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import datastore
from datastore import account
from datastore.dsn import (
    Access,
    Dsn,
    Target,
    check_sqlite_parameters,
    sqlite_path,
    to_target,
)
from datastore.dsn.password import PasswordCommand, PasswordFile, PasswordVariable
from datastore.endpoint import Endpoint
from datastore.errors import ConfigError, NotReady, Problem, UnusablePath
from datastore.launch import EtcdProbe, HttpProbe, ProcessSpec
from datastore.paths import Paths, make_directory, open_passage, socket_url
from datastore.probe import probe
from datastore.registry import Request, taken_flags

logger = logging.getLogger(__name__)

PROCESS: Final = "datastore"

VARIABLE: Final = "BYRE_DATASTORE"
"""The environment variable that takes the data source to the shim; argv never holds it."""

LISTEN_VARIABLE: Final = "BYRE_DATASTORE_LISTEN"
PASSWORD_VARIABLE: Final = "BYRE_DATASTORE_PASSWORD"  # noqa: S105 - the name of a variable

_POSITION: Final = "position-{}.json"

_OWN_FLAGS: Final = frozenset({
    "datastore", "datastore-ca-file", "datastore-cert-file", "datastore-file",
    "datastore-key-file", "datastore-listen", "datastore-password-command",
    "datastore-password-env", "datastore-password-file", "datastore-prefix", "datastore-schema",
    "datastore-tls-mode", "listen-metrics-urls", "position-file",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShimDatastore:
    """A SQL database served by the shim on a unix socket that only byre can reach.

    Attributes:
        kind: ``sqlite``, ``postgresql`` or ``mysql``.
        shared: Whether other controllers may use the same database.
        dsn: The data source that the shim is given.
        place: Where the database is, for messages; no secret.
        socket: Where the shim serves etcd's API.
        http_socket: Where it serves its health.
        state_dir: The database's file, or what the shim remembers of a database server.
        name: Which member of the cluster it is.
        file: The database's file, on SQLite.
        target: The database server otherwise.
        access: How that server is reached.
        flags: Further flags of the user's.
        user: Whom the shim runs as; None for byre's own user.
        passages: Directories of byre's that this user has to pass through.
    """

    kind: str
    shared: bool
    dsn: Dsn
    place: str
    socket: Path
    http_socket: Path
    state_dir: Path
    name: str
    file: Path | None = None
    target: Target | None = None
    access: Access = field(default_factory=Access)
    flags: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    passages: Sequence[Path] = ()
    binaries: Sequence[str] = ()

    @property
    def endpoint(self) -> Endpoint:
        """The shim's unix socket."""
        return Endpoint((socket_url(self.socket),))

    @property
    def warning(self) -> str:
        """What the user should change, although it works; empty when nothing."""
        weakness = self.target.weakness if self.target else ""
        return weakness and f"{weakness}; give spec.storage.kine.caFile"

    @property
    def position_file(self) -> Path:
        """What the shim has served of this very database, so that a lost tail is noticed."""
        which = f"{self.place}\0{self.access.prefix}\0{self.access.schema}"
        return self.state_dir / _POSITION.format(_digest(which.encode()))

    def processes(self) -> Sequence[ProcessSpec]:
        """Return the shim; data sources and passwords travel in the environment."""
        url = socket_url(self.socket)
        return (
            ProcessSpec(
                name=PROCESS,
                argv=(*_interpreter(), "-m", "datastore", "serve", *self._flags(url)),
                environment={**_import_path(), **self._home()},
                secrets={VARIABLE: self.dsn.text, **_secrets(self.access)},
                user=self.user,
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
        """Make the directories of the database and the sockets, private to the shim's user.

        Raises DatastoreError for what the shim would not be able to read or write.
        """
        make_directory(self.socket.parent)
        make_directory(self.state_dir)
        self._check_files()
        if self.file is not None:
            _prepare_file(self.file)
        if self.user:
            self._hand_over(account.find_account(self.user))
        elif os.geteuid() == 0:
            logger.info(
                "the datastore runs as root; `%s` would give it a user of its own",
                account.creation(account.DEFAULT_USER),
            )
        if self.warning:
            logger.warning("%s", self.warning)

    async def check(self) -> None:
        """Return when the shim answers a linearizable read; raises NotReady."""
        try:
            await probe(EtcdProbe(socket_url(self.socket)))
        except NotReady as error:
            raise NotReady(
                f"the server of {self.place} does not answer: {error.reason}",
                f"byre status and byre logs {PROCESS} tell more",
            ) from error

    def _flags(self, url: str) -> list[str]:
        urls = [part for part in self.flags.get("listen-client-urls", "").split(",") if part]
        flags = {
            "listen-client-urls": ",".join([url, *urls]),
            "advertise-client-urls": ",".join(urls or [url]),
            "listen-metrics-urls": socket_url(self.http_socket),
            "position-file": str(self.position_file),
            **({"name": self.name} if self.shared else {}),
            **_access_flags(self.access),
            **{name: text for name, text in self.flags.items() if name != "listen-client-urls"},
        }
        return [f"--{name}={text}" for name, text in flags.items()]

    def _home(self) -> Mapping[str, str]:
        # libpq looks for files in the home directory, and fails when it may not.
        return {"HOME": str(account.find_account(self.user).home)} if self.user else {}

    def _check_files(self) -> None:
        access = self.access
        files = [path for path in (access.ca, access.cert, access.key) if path]
        if isinstance(access.password, PasswordFile):
            files.append(access.password.path)
        if isinstance(access.password, PasswordFile | PasswordVariable):
            access.password.get()
        for path in files:
            try:
                path.open("rb").close()
            except OSError as error:
                raise UnusablePath(path, (error.strerror or str(error)).lower()) from None
            if self.user:
                account.require_readable(path, account.find_account(self.user))

    def _hand_over(self, owner: account.Account) -> None:
        interpreter = Path(sys.executable)
        for path in (interpreter, interpreter.resolve(), Path(datastore.__file__)):
            account.require_passage(path, owner)
        open_passage(self.passages)
        for directory in (self.socket.parent, self.state_dir):
            account.require_passage(directory, owner)
            account.give((directory, *directory.iterdir()), owner)
        if self.file is not None and self.file.parent != self.state_dir:
            account.require_writable(self.file.parent, owner)
            account.give(self.file.parent.glob(f"{self.file.name}*"), owner)


def forget_positions(state_dir: Path) -> None:
    """Forget what was served, so that the next start takes the store as it is."""
    for file in state_dir.glob(_POSITION.format("*")):
        file.unlink()


def from_file(request: Request) -> ShimDatastore:
    """Return the datastore of a ``sqlite://`` data source; raises DatastoreError."""
    problems = [
        Problem(f"spec.storage.kine.{key}", "", f"is for a database server, not {request.dsn}")
        for key in request.server_keys
    ]
    check_sqlite_parameters(request.dsn)
    file = sqlite_path(request.dsn, request.paths.database_dir)
    return _made(request, "sqlite", Dsn(f"sqlite:///{file}"), str(file), problems, file=file)


def from_server(request: Request) -> ShimDatastore:
    """Return the datastore of a database server; raises DatastoreError."""
    target = to_target(request.dsn, request.access)
    return _made(request, target.driver, request.dsn, target.place, [], target=target)


def _made(
    request: Request,
    kind: str,
    dsn: Dsn,
    place: str,
    problems: list[Problem],
    *,
    file: Path | None = None,
    target: Target | None = None,
) -> ShimDatastore:
    problems += taken_flags(request.extra_args, _OWN_FLAGS, "spec.storage.kine")
    if problems:
        raise ConfigError("spec.storage", problems)
    run_dir = request.paths.datastore_run_dir
    made = ShimDatastore(
        kind,
        target is not None,
        dsn,
        place,
        socket=run_dir / "shim.sock",
        http_socket=run_dir / "http.sock",
        state_dir=request.paths.database_dir,
        name=_member_name(request.paths),
        file=file,
        target=target,
        access=request.access,
        flags=request.extra_args,
        user=request.user,
        passages=request.paths.passages,
    )
    socket_url(made.socket)
    return made


def _member_name(paths: Paths) -> str:
    """Return a name that no other controller on the database has: this machine and directory."""
    return f"{socket.gethostname()}-{_digest(os.fsencode(paths.data_dir))}"


def _digest(name: bytes) -> str:
    return hashlib.sha256(name).hexdigest()[:8]


def _access_flags(access: Access) -> Mapping[str, str]:
    flags = {
        "datastore-prefix": access.prefix,
        "datastore-schema": access.schema,
        "datastore-ca-file": str(access.ca or ""),
        "datastore-cert-file": str(access.cert or ""),
        "datastore-key-file": str(access.key or ""),
        "datastore-tls-mode": access.tls_mode or "",
    }
    match access.password:
        case PasswordFile(path):
            flags["datastore-password-file"] = str(path)
        case PasswordCommand(argv):
            flags["datastore-password-command"] = shlex.join(argv)
        case PasswordVariable():
            flags["datastore-password-env"] = PASSWORD_VARIABLE
    return {name: text for name, text in flags.items() if text}


def _secrets(access: Access) -> Mapping[str, str]:
    secrets = {}
    if access.listen:
        secrets[LISTEN_VARIABLE] = access.listen.text
    if isinstance(access.password, PasswordVariable):
        secrets[PASSWORD_VARIABLE] = access.password.text or ""
    return secrets


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


def _prepare_file(file: Path) -> None:
    if not file.parent.exists():
        make_directory(file.parent)
        return
    if not file.parent.is_dir():
        raise UnusablePath(file.parent, "it is not a directory")
    if file.is_dir():
        raise UnusablePath(file, "it is a directory; name a file")
    # A directory of the user's own choice keeps its mode.
    make_directory(file.parent, file.parent.stat().st_mode & 0o777)
    for path in (file, file.with_name(f"{file.name}-wal")):
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise UnusablePath(path, "not writable for this user; change its owner or mode")
