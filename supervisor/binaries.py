"""Find a program of the right version, or obtain it: path, PATH, cache, download, build."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from datastore.errors import UnusablePath
from datastore.paths import make_directory
from supervisor.build import BuildError, build, discard
from supervisor.child import run
from supervisor.fetch import FetchError, fetch
from supervisor.progress import SILENT, Report, Step
from supervisor.releases import KUBERNETES, KUBERNETES_VERSION, Program, parse_version, program
from supervisor.releases import target as platform_name
from supervisor.toolchain import GO_VERSION, obtain_go

OnBytes = Callable[[int, int | None], None]

_VERSION_SECONDS: Final = 20.0
_SCRATCH: Final = ".partial-"

_OLDEST_ETCD: Final = (3, 5, 13)
"""kube-apiserver >= 1.31 switches consistent lists from cache off below it."""


class BinaryError(Exception):
    """A program that cannot be had."""


class WrongVersion(BinaryError):
    """A program named by its path has another version than the one needed."""


class BinaryUnavailable(BinaryError):
    """No way to the program worked; the message names each and what to do."""


class Binaries:
    """The programs that byre runs; blocking, so called before the loop or in a thread."""

    def __init__(
        self,
        cache_dir: Path,
        *,
        kubernetes: str = KUBERNETES_VERSION,
        explicit: Mapping[str, Path] | None = None,
        progress: Report = SILENT,
        environ: Mapping[str, str] = os.environ,
        fetcher: Callable[[Program, Path, OnBytes], Path] = fetch,
        find_go: Callable[[Mapping[str, str], Path, OnBytes], str] = obtain_go,
    ) -> None:
        self._cache = cache_dir / "bin"
        self._kubernetes = kubernetes
        self._explicit = dict(explicit or {})
        self._report = progress
        self._environ = environ
        self._fetch = fetcher
        self._find_go = find_go
        self._found: dict[str, Path] = {}
        self._unreachable: dict[str, str] = {}

    def find(self, name: str) -> Path | None:
        """Return the program if it is on this machine: named, in PATH, or in byre's cache.

        Raises:
            BinaryError: It is named by its path and cannot be used.
        """
        return self._find(program(name, self._kubernetes), [])

    def obtain(self, name: str) -> Path:
        """Return the program, downloaded or built if need be.

        Raises:
            BinaryError: It cannot be had; every way that was tried is named.
        """
        wanted = program(name, self._kubernetes)
        tried: list[str] = []
        found = self._find(wanted, tried)
        if found:
            return found
        try:
            with self._locked(name):
                # Another byre may have finished it meanwhile.
                found = self._cached(wanted) or self._make(wanted, tried)
        except UnusablePath as error:
            tried.append(f"byre's cache: {error}")
        if found is None:
            raise BinaryUnavailable(_advice(wanted, tried))
        self._found[name] = found
        return found

    def obtain_all(self, names: Iterable[str]) -> dict[str, Path]:
        """Return the programs of several names; raises BinaryError for the first that fails."""
        return {name: self.obtain(name) for name in names}

    def _find(self, wanted: Program, tried: list[str]) -> Path | None:
        if wanted.name in self._found:
            return self._found[wanted.name]
        if wanted.name in self._explicit:
            found: Path | None = self._check_explicit(wanted, self._explicit[wanted.name])
        else:
            found = self._in_path(wanted, tried) or self._cached(wanted)
        if found:
            self._found[wanted.name] = found
        return found

    def _check_explicit(self, wanted: Program, path: Path) -> Path:
        if not path.is_file():
            raise BinaryUnavailable(f"{wanted.name}: {path} does not exist")
        if not os.access(path, os.X_OK):
            raise BinaryUnavailable(f"{wanted.name}: {path} is not executable; chmod +x {path}")
        version, reason = self._version(wanted, path)
        if wanted.name == "kine" and not reason:
            # Builds from source call themselves `dev`; nothing depends on kine's version.
            return path
        if version is None:
            raise WrongVersion(f"{wanted.name}: {path} tells no version: {reason or 'no output'}")
        if wanted.name == "etcd" and _numbers(version) >= _OLDEST_ETCD:
            return path
        if version != wanted.version:
            what = "3.5.13 or newer" if wanted.name == "etcd" else wanted.version
            hint = ", or set spec.kubernetes.version" if wanted.name in KUBERNETES else ""
            raise WrongVersion(
                f"{wanted.name}: {path} is version {version}, needed is {what}; "
                f"name another file{hint}"
            )
        return path

    def _in_path(self, wanted: Program, tried: list[str]) -> Path | None:
        found = shutil.which(wanted.name, path=self._environ.get("PATH", os.defpath))
        if found is None:
            tried.append(f"PATH: no {wanted.name}")
            return None
        version, reason = self._version(wanted, Path(found))
        if version == wanted.version:
            return Path(found)
        what = f"is version {version}" if version else f"tells no version ({reason})"
        tried.append(f"PATH: {found} {what}, needed is {wanted.version}")
        return None

    def _version(self, wanted: Program, path: Path) -> tuple[str | None, str]:
        environment = {
            name: self._environ[name] for name in ("PATH", "HOME") if name in self._environ
        }
        try:
            finished = run(
                [str(path), *wanted.version_argv],
                environment=environment,
                timeout_seconds=_VERSION_SECONDS,
            )
        except (OSError, TimeoutError) as error:
            return None, str(error)
        output = "\n".join(finished.lines)
        if finished.status != 0:
            return None, f"status {finished.status}: {output[-200:]}"
        return parse_version(output), ""

    def _place(self, wanted: Program) -> Path:
        return self._cache / f"{wanted.name}-{wanted.version}-{platform_name()}" / wanted.name

    def _cached(self, wanted: Program) -> Path | None:
        path = self._place(wanted)
        return path if path.is_file() and os.access(path, os.X_OK) else None

    def _make(self, wanted: Program, tried: list[str]) -> Path | None:
        tried.append(f"byre's cache: no {self._place(wanted)}")
        for way, make in (("download", self._download), ("go build", self._build)):
            scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self._cache))
            try:
                return self._install(wanted, make(wanted, scratch))
            except (FetchError, BuildError, OSError) as error:
                tried.append(f"{way}: {error}")
                reason = str(error).partition("\n")[0]
                self._report(Step(wanted.name, f"{way}: {reason}", finished=True))
            finally:
                discard(scratch)
        return None

    def _download(self, wanted: Program, scratch: Path) -> Path:
        for host, reason in self._unreachable.items():
            if f"//{host}/" in wanted.download.url:
                raise FetchError(reason)
        action = f"downloading {wanted.version}"
        self._report(Step(wanted.name, action))
        try:
            return self._fetch(
                wanted,
                scratch,
                lambda done, total: self._report(Step(wanted.name, action, done, total)),
            )
        except FetchError as error:
            if error.host:
                self._unreachable[error.host] = str(error)
            raise

    def _build(self, wanted: Program, scratch: Path) -> Path:
        cost = f" ({wanted.recipe.cost} the first time)" if wanted.recipe else ""
        action = f"building {wanted.version} from the Go module proxy{cost}"
        self._report(Step(wanted.name, action))

        def fetching(done: int, total: int | None) -> None:
            self._report(Step(wanted.name, f"downloading Go {GO_VERSION}", done, total))

        return build(
            wanted,
            scratch,
            self._environ,
            lambda: self._find_go(self._environ, self._cache, fetching),
            lambda count: self._report(Step(wanted.name, action, count, unit="packages")),
        )

    def _install(self, wanted: Program, file: Path) -> Path:
        """Check a fresh program and move it into the cache in one step."""
        file.chmod(0o755)
        version, reason = self._version(wanted, file)
        if version != wanted.version:
            raise FetchError(
                f"what came is version {version}, not {wanted.version} {reason}".rstrip()
            )
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        place = self._place(wanted)
        make_directory(place.parent, 0o755)
        file.replace(place)
        self._report(Step(wanted.name, f"{wanted.version} ready", finished=True))
        return place

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the cache alone: nobody builds the same twice, and leftovers can be removed."""
        make_directory(self._cache, 0o755)
        with self._cache.joinpath(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._report(Step(name, "waiting for another byre that obtains programs"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self._cache.glob(f"{_SCRATCH}*"):
                discard(left)
            yield


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def _advice(wanted: Program, tried: Iterable[str]) -> str:
    ways = "".join(f"\n  - {way}" for way in tried)
    return (
        f"{wanted.name} {wanted.version} cannot be had; tried:{ways}\n"
        f"put {wanted.name} {wanted.version} into PATH, name its path in the configuration, "
        "or make one of these ways work (a mirror: HTTPS_PROXY, GOPROXY)"
    )
