"""Build the Go programs of the tests into a cache outside the checkout.

    python -m tests.tools.build            builds all of them and prints their paths
    python -m tests.tools.build etcd kine  only these

Versions are pinned by the `go.mod` and `go.sum` of the folders beside this file, and modules come
the way the user's Go gets them. The cache is keyed by the content of those folders. A build goes
to a temporary directory and is renamed, under a lock, so that an interrupted one leaves nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.tools.toolchain import MissingTool, go, require_compiler

HERE = Path(__file__).parent
BUILD_SECONDS = 1800
KINE_VERSION = "-X github.com/k3s-io/kine/pkg/version.Version=v0.17.5"


class Program(NamedTuple):
    """What one program is built from: a folder beside this file, a package, linker flags."""

    folder: str
    package: str
    flags: str = ""
    ours: bool = False
    """Its Go tests have to pass before it is built."""
    cgo: bool = False


PROGRAMS: Mapping[str, Program] = {
    "etcd": Program("etcd", "go.etcd.io/etcd/server/v3"),
    "etcdctl": Program("etcd", "go.etcd.io/etcd/etcdctl/v3"),
    "etcdutl": Program("etcd", "go.etcd.io/etcd/etcdutl/v3"),
    "kine": Program("kine", "github.com/k3s-io/kine", KINE_VERSION, cgo=True),
    "porcupine-check": Program("porcupine", ".", ours=True),
    "h2spec": Program("h2spec", "github.com/summerwind/h2spec/cmd/h2spec"),
    "grpc-client": Program("grpcclient", ".", ours=True),
    "clientv3-check": Program("clientv3", ".", ours=True),
    "load": Program("load", ".", ours=True),
}


class BuildError(Exception):
    """A program cannot be built; says which and what the compiler had to say."""


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where built programs are kept."""
    if own := environ.get("BYRE_TEST_CACHE"):
        return Path(own)
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache"
    return Path(base) / "byre" / "test"


def find(name: str) -> Path | None:
    """Return the program if it is there already."""
    if ready := os.environ.get("BYRE_TEST_BIN"):
        candidate = Path(ready, name)
        if os.access(candidate, os.X_OK):
            return candidate
    path = _place(PROGRAMS[name]) / name
    return path if path.exists() else None


def obtain(name: str) -> Path:
    """Return the program, built first if need be."""
    if found := find(name):
        return found
    program = PROGRAMS[name]
    place = _place(program)
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place.parent / f"{program.folder}.lock"):
        return find(name) or _build(name, program, place)


def _place(program: Program) -> Path:
    digest = hashlib.sha256(program.flags.encode())
    for source in sorted((HERE / program.folder).rglob("*")):
        if source.is_file() and (source.suffix == ".go" or source.name in {"go.mod", "go.sum"}):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return cache_dir() / f"{program.folder}-{digest.hexdigest()[:16]}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(name: str, program: Program, place: Path) -> Path:
    print(f"building {name} (once; takes a minute or two)", file=sys.stderr, flush=True)
    if program.cgo:
        require_compiler()
    if program.ours:
        _go(program, "vet", ".")
        _go(program, "test", "-trimpath", ".")
    with tempfile.TemporaryDirectory(dir=place, prefix=f".{name}.") as scratch:
        product = Path(scratch, name)
        flags = ["-mod=readonly", "-trimpath", f"-ldflags={program.flags}"]
        _go(program, "build", *flags, "-o", str(product), program.package)
        return product.rename(place / name)


def _go(program: Program, verb: str, *arguments: str) -> None:
    folder = HERE / program.folder
    done = subprocess.run(
        [go(folder / "go.mod"), verb, *arguments],
        cwd=folder,
        env={**os.environ, "GOWORK": "off"},
        timeout=BUILD_SECONDS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise BuildError(f"go {verb} {program.package} in {folder}:\n{done.stdout[-4000:]}")


def main(names: list[str]) -> int:
    """Build the named programs, all of them if none is named."""
    if unknown := sorted(set(names) - set(PROGRAMS)):
        print(
            f"no such program: {', '.join(unknown)}; there are {', '.join(PROGRAMS)}",
            file=sys.stderr,
        )
        return 2
    for name in names or PROGRAMS:
        try:
            print(obtain(name))
        except (BuildError, MissingTool, OSError, subprocess.SubprocessError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
