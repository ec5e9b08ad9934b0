"""Where byre keeps its files: data, run-time, cache and configuration."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from datastore.errors import UnusablePath

SOCKET_PATH_BYTES = 107
"""What Linux holds in sockaddr_un.sun_path, without the closing zero."""

PRIVATE = 0o700
PASSAGE = 0o711
"""Of a directory that another user has to pass through, and sees nothing in."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The directories of one byre; nothing is made until somebody needs it."""

    data_dir: Path
    run_dir: Path
    cache_dir: Path
    config_file: Path

    @classmethod
    def default(
        cls,
        data_dir: Path | None = None,
        run_dir: Path | None = None,
        cache_dir: Path | None = None,
        config_file: Path | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        uid: int | None = None,
    ) -> Self:
        """Return the usual directories: the system's for root, XDG ones for anybody else.

        A data directory other than the usual one has a run directory of its own, so that
        several byres live side by side.
        """
        is_root = (os.geteuid() if uid is None else uid) == 0
        usual = _system() if is_root else _personal(environ)
        data = _absolute(data_dir) if data_dir else usual.data_dir
        if run_dir is not None:
            run = _absolute(run_dir)
        elif data == usual.data_dir:
            run = usual.run_dir
        else:
            run = usual.run_dir / hashlib.sha256(os.fsencode(data)).hexdigest()[:8]
        return cls(
            data_dir=data,
            run_dir=run,
            cache_dir=_absolute(cache_dir) if cache_dir else usual.cache_dir,
            config_file=_absolute(config_file) if config_file else usual.config_file,
        )

    @property
    def pki_dir(self) -> Path:
        """The cluster's certificates and keys."""
        return self.data_dir / "pki"

    @property
    def datastore_pki_dir(self) -> Path:
        """The datastore's own certificate authority and leaves."""
        return self.pki_dir / "datastore"

    @property
    def database_dir(self) -> Path:
        """SQLite files."""
        return self.data_dir / "db"

    @property
    def etcd_dir(self) -> Path:
        """The managed etcd member's data."""
        return self.data_dir / "etcd"

    @property
    def datastore_run_dir(self) -> Path:
        """Sockets of the datastore's processes."""
        return self.run_dir / "datastore"

    @property
    def passages(self) -> Sequence[Path]:
        """The directories of byre's own on the way to those of the datastore."""
        common = _system().run_dir
        above = (common,) if common in self.run_dir.parents else ()
        return (self.data_dir, *above, self.run_dir)


def make_directory(path: Path, mode: int = PRIVATE) -> None:
    """Make `path` and its parents; `mode` holds for `path` even if it was there.

    A directory made on the way is private too. Raises UnusablePath.
    """
    missing = []
    parent = path
    while not parent.exists() and parent != parent.parent:
        missing.append(parent)
        parent = parent.parent
    try:
        for directory in reversed(missing):
            directory.mkdir(mode=PRIVATE, exist_ok=True)
        if not path.is_dir():
            raise UnusablePath(path, "it is not a directory; move it away or choose another")
        if path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)
    except OSError as error:
        raise UnusablePath(path, _reason(error)) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UnusablePath(path, "not writable for this user; change its owner or choose another")


def open_passage(directories: Iterable[Path]) -> None:
    """Let other users pass through directories, to what is theirs; they see nothing on the way."""
    for directory in directories:
        try:
            directory.chmod(directory.stat().st_mode & 0o777 | PASSAGE)
        except OSError as error:
            raise UnusablePath(directory, _reason(error)) from error


def socket_url(path: Path) -> str:
    """Return the ``unix://`` URL of a socket path; UnusablePath when it is too long to bind."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES:
        raise UnusablePath(
            path,
            f"a socket path has at most {SOCKET_PATH_BYTES} bytes, this one has {length}; "
            "choose a shorter run directory",
        )
    return f"unix://{path}"


def _system() -> Paths:
    return Paths(
        data_dir=Path("/var/lib/byre"),
        run_dir=Path("/run/byre"),
        cache_dir=Path("/var/cache/byre"),
        config_file=Path("/etc/byre/byre.yaml"),
    )


def _personal(environ: Mapping[str, str]) -> Paths:
    home = Path(environ.get("HOME") or Path.home())
    data = _xdg(environ, "XDG_DATA_HOME", home / ".local/share") / "byre"
    return Paths(
        data_dir=data,
        run_dir=_xdg(environ, "XDG_RUNTIME_DIR", data / "run", "byre"),
        cache_dir=_xdg(environ, "XDG_CACHE_HOME", home / ".cache") / "byre",
        config_file=_xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "byre/byre.yaml",
    )


def _xdg(environ: Mapping[str, str], name: str, otherwise: Path, below: str = "") -> Path:
    # The specification: a relative path in one of these is to be ignored.
    value = environ.get(name, "")
    return Path(value) / below if value.startswith("/") else otherwise


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow symbolic links)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
