"""Find a Go that can build a module and a C compiler, or get them on a fresh machine.

A Go of 1.21 or later fetches the version a `go.mod` asks for by itself. Debian 12 has an older
one: it serves to download the newer toolchain, which is published as a Go module.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ADVICE = "install Go (https://go.dev/doc/install) and gcc, or run once as root on Debian"
USUAL_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin")


class MissingTool(Exception):
    """What a build needs is not here; says what to do."""


def go(module_file: Path) -> str:
    """Return the path of a `go` command that can build the module."""
    wanted = _wanted(module_file)
    if _find() is None:
        _install("golang-go", "ca-certificates")
    found = _find()
    if found is None:
        raise MissingTool(f"there is no go command: {ADVICE}")
    have = _version(found)
    if have >= wanted or (have >= (1, 21, 0) and _env(found, "GOTOOLCHAIN") != "local"):
        return found
    if have >= (1, 21, 0):
        text = ".".join(map(str, wanted))
        raise MissingTool(
            f"{found} is older than {text} and GOTOOLCHAIN=local forbids it to get that"
        )
    return _bootstrap(found, wanted)


def require_compiler() -> None:
    """Make sure that cgo finds a C compiler."""
    if "CC" not in os.environ and shutil.which("gcc") is None:
        _install("gcc", "libc6-dev")


def _wanted(module_file: Path) -> tuple[int, ...]:
    line = re.search(r"^go (\d+)\.(\d+)(?:\.(\d+))?", module_file.read_text(), re.MULTILINE)
    if line is None:
        raise MissingTool(f"{module_file} names no Go version")
    return tuple(int(part or 0) for part in line.groups())


def _find() -> str | None:
    places = os.pathsep.join([os.environ.get("PATH", ""), *USUAL_PLACES])
    return shutil.which("go", path=places)


def _install(*packages: str) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingTool(f"missing {packages[0]} to build the test servers: {ADVICE}")
    print(f"installing {', '.join(packages)} by apt-get", file=sys.stderr, flush=True)
    subprocess.run(["apt-get", "update", "-q"], check=True, stdout=sys.stderr)
    argv = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(argv, check=True, stdout=sys.stderr, env=environment)


def _version(command: str) -> tuple[int, ...]:
    # Outside every module: the version of this Go, not of one it would fetch.
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    text = subprocess.check_output([command, "version"], env=environment, cwd="/", text=True)
    match = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        raise MissingTool(f"{command} does not tell its version: {text.strip()}")
    return tuple(int(part or 0) for part in match.groups())


def _env(command: str, name: str) -> str:
    return subprocess.check_output([command, "env", name], cwd="/", text=True).strip()


def _bootstrap(command: str, wanted: tuple[int, ...]) -> str:
    system, machine = _env(command, "GOOS"), _env(command, "GOARCH")
    release = f"go{'.'.join(map(str, wanted))}.{system}-{machine}"
    cache = Path(_env(command, "GOMODCACHE"))
    place = cache / "golang.org" / f"toolchain@v0.0.1-{release}"
    if not place.exists():
        print(f"downloading {release}", file=sys.stderr, flush=True)
        module = f"golang.org/toolchain@v0.0.1-{release}"
        done = subprocess.run([command, "mod", "download", module], cwd="/", check=False)
        if done.returncode:
            raise MissingTool(f"{command} is too old and {release} cannot be downloaded: {ADVICE}")
    # Files of a module are not executable; the newer Go does the same as this.
    for program in [*place.glob("bin/*"), *place.glob("pkg/tool/*/*")]:
        program.chmod(program.stat().st_mode | 0o111)
    return str(place / "bin" / "go")
