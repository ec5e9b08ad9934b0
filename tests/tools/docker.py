"""Docker for the tests of the stacks: client, compose, an engine and an image to begin with.

    python -m tests.tools.docker    installs what is missing, as root on Debian; says what there is

An engine that runs already is used, whatever started it. Debian 12 has no compose 2: it is taken
from the next release, into the cache and not into the system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.tools.build import cache_dir

PACKAGES: Mapping[str, str] = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "iptables": "iptables",
    "debootstrap": "debootstrap",
}
OLDEST_COMPOSE = (2, 20)
"""The first one with `include`."""

RELEASE = "bookworm"
NEWER_RELEASE = "trixie"
MIRROR = "http://deb.debian.org/debian"
SECONDS = 900
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


class NoDocker(Exception):
    """Docker cannot be had; says what to do."""


def run(
    argv: Sequence[str | Path],
    *,
    seconds: float = SECONDS,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a program to its end and return what it prints; raises NoDocker when it fails."""
    done = subprocess.run(
        argv,
        env=environment,
        cwd=cwd,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        words = " ".join(map(str, argv))
        raise NoDocker(f"{words}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def works(argv: Sequence[str | Path], environment: Mapping[str, str]) -> bool:
    """Say whether a program ends well."""
    try:
        run(argv, seconds=60, environment=environment)
    except (NoDocker, OSError, subprocess.SubprocessError):
        return False
    return True


def find(name: str) -> str | None:
    """Return a program of PACKAGES, or None."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}")


def obtain(name: str) -> str:
    """Return a program of PACKAGES, installed first if need be."""
    if found := find(name):
        return found
    package = PACKAGES[name]
    if os.geteuid() or not shutil.which("apt-get"):
        raise NoDocker(
            f"there is no {name}: start a Docker engine or name one in DOCKER_HOST, or install "
            f"{package} (`make docker` does it for root on Debian)"
        )
    print(f"installing {package}", file=sys.stderr, flush=True)
    # What is installed for tests must not start by itself, and not ask anybody anything.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    run(["apt-get", "update", "-q"], environment=environment)
    run(
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", package],
        environment=environment,
    )
    if found := find(name):
        return found
    raise NoDocker(f"{name} is still missing after installing {package}")


def place() -> Path:
    """Return where all this is kept."""
    return cache_dir() / "docker"


def client_environment() -> Mapping[str, str]:
    """Return the environment in which `docker compose` works, obtained first if need be."""
    docker = obtain("docker")
    usual = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"}
    if _compose_version(docker, usual) >= OLDEST_COMPOSE:
        return usual
    folder = place() / "client"
    own = {**usual, "DOCKER_CONFIG": str(folder)}
    plugin = folder / "cli-plugins" / "docker-compose"
    if not plugin.exists():
        plugin.parent.mkdir(parents=True, exist_ok=True)
        _fetch_compose(plugin)
    if _compose_version(docker, own) < OLDEST_COMPOSE:
        raise NoDocker(f"{plugin} is no docker compose of at least 2.20; remove it")
    return own


def base_image() -> Path:
    """Return an archive of a small Debian, made first if need be: no registry is needed."""
    archive = place() / f"{RELEASE}.tar.gz"
    if archive.exists():
        return archive
    if os.geteuid():
        raise NoDocker("no registry can be reached, and only root can make a base image")
    print(f"making a base image of {RELEASE}", file=sys.stderr, flush=True)
    debootstrap = obtain("debootstrap")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".base.") as scratch:
        root, part = Path(scratch, "root"), Path(scratch, "part")
        run([debootstrap, "--variant=minbase", RELEASE, root, debian_mirror()])
        leave = ["--exclude=./var/cache/apt/archives/*.deb", "--exclude=./var/lib/apt/lists/*"]
        run(["tar", "-C", root, *leave, "-czf", part, "."])
        part.rename(archive)
    return archive


def debian_mirror() -> str:
    """Return the mirror that this machine is configured to use, or Debian's own address."""
    pattern = "$(REPO_URI) $(LABEL)"
    argv = ["apt-get", "indextargets", "--format", pattern, "Created-By: Packages"]
    for line in run(argv, seconds=60).splitlines():
        uri, _, label = line.partition(" ")
        if label == "Debian":
            return uri
    return MIRROR


def _compose_version(docker: str, environment: Mapping[str, str]) -> tuple[int, int]:
    try:
        text = run([docker, "compose", "version", "--short"], seconds=60, environment=environment)
    except NoDocker:
        return 0, 0
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _fetch_compose(plugin: Path) -> None:
    if not shutil.which("apt-get"):
        raise NoDocker("there is no docker compose of at least 2.20: install the plugin")
    print(f"obtaining docker compose of {NEWER_RELEASE}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=plugin.parent, prefix=".compose.") as scratch:
        state = Path(scratch)
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True)
        keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        sources = state / "sources.list"
        sources.write_text(f"deb [signed-by={keyring}] {debian_mirror()} {NEWER_RELEASE} main\n")
        options = {
            "Dir::State": state / "state",
            "Dir::Cache": state / "cache",
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            # The sandbox of downloads has no way into a directory of our own.
            "APT::Sandbox::User": "root",
        }
        apt = [
            "apt-get",
            *(part for one in options.items() for part in ("-o", "=".join(map(str, one)))),
        ]
        run([*apt, "update", "-q"])
        run([*apt, "download", "docker-compose"], cwd=state)
        (package,) = state.glob("docker-compose_*.deb")
        run(["dpkg", "-x", package, state / "root"])
        (state / "root/usr/libexec/docker/cli-plugins/docker-compose").rename(plugin)


def main() -> int:
    """Install what is missing, and say what there is."""
    try:
        environment = client_environment()
        docker = obtain("docker")
        print(docker)
        if not works([docker, "info"], environment):
            obtain("iptables")
            print(obtain("dockerd"))
            print(base_image())
    except (NoDocker, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
