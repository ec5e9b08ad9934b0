"""The database servers of the tests: the distribution's packages, installed when missing.

    python -m tests.tools.databases    installs what is missing, as root; prints where all is

Only Debian and its like are known. Elsewhere the programs have to be on the PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    """Where a server's program is, and what installs it."""

    name: str
    folders: str
    """Pattern of folders beside those of the PATH; the last one in order is taken first."""


PROGRAMS: Mapping[str, Package] = {
    "postgres": Package("postgresql", "/usr/lib/postgresql/*/bin"),
    "initdb": Package("postgresql", "/usr/lib/postgresql/*/bin"),
    "pgbouncer": Package("pgbouncer", "/usr/sbin"),
    "mariadbd": Package("mariadb-server", "/usr/sbin"),
    "mariadb-install-db": Package("mariadb-server", "/usr/bin"),
}
APT_SECONDS = 600


class MissingServer(Exception):
    """A database server is not there and cannot be installed."""


def find(name: str) -> Path | None:
    """Return a program of a database server, or None."""
    if ready := os.environ.get("BYRE_TEST_BIN"):
        candidate = Path(ready, name)
        if os.access(candidate, os.X_OK):
            return candidate
    for folder in sorted(Path("/").glob(PROGRAMS[name].folders[1:]), key=_version, reverse=True):
        if os.access(folder / name, os.X_OK):
            return folder / name
    found = shutil.which(name)
    return Path(found).resolve() if found else None


def obtain(name: str) -> Path:
    """Return a program of a database server, installed first if need be."""
    if found := find(name):
        return found
    install([name])
    if found := find(name):
        return found
    raise MissingServer(f"{name} is still missing after installing {PROGRAMS[name].name}")


def install(names: list[str]) -> None:
    """Install the packages of these programs."""
    packages = sorted({PROGRAMS[name].name for name in names})
    if os.geteuid() or not shutil.which("apt-get"):
        raise MissingServer(
            f"{', '.join(names)}: install {' '.join(packages)} "
            "(`make databases` does it for root on Debian)"
        )
    print(f"installing {' '.join(packages)}", file=sys.stderr, flush=True)
    # What is installed for tests must not start by itself, and not ask anybody anything.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for arguments in (
        ["update", "-q"],
        ["install", "-q", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(
            ["apt-get", *arguments],
            env=environment,
            timeout=APT_SECONDS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise MissingServer(f"apt-get {' '.join(arguments)}:\n{done.stdout[-2000:]}")


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.parts if part.isdigit())


def main() -> int:
    """Install what is missing."""
    try:
        if missing := [name for name in PROGRAMS if find(name) is None]:
            install(missing)
        for name in PROGRAMS:
            print(obtain(name))
    except (MissingServer, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
