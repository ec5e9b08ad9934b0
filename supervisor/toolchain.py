"""Find a Go that can build, or get one: toolchains are published as Go modules."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import httpx

from supervisor.child import run
from supervisor.fetch import CONNECT_SECONDS
from supervisor.releases import target

GO_VERSION: Final = "1.26.8"

_USUAL_PLACES: Final = ("/usr/local/go/bin", "/usr/lib/go/bin")
_OLDEST: Final = (1, 21)
"""From here on a Go fetches the version that a go.mod asks for by itself."""

# The sums of golang.org/toolchain@v0.0.1-go1.26.8.PLATFORM in Go's checksum database.
_SUMS: Final[Mapping[str, str]] = {
    "linux-amd64": "h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=",
    "linux-arm64": "h1:sYL/O6MqS68ML0kjsQ36WoYIpJqkw60TxizWUYUKQMc=",
}


class NoGo(Exception):
    """There is no Go that can build, and none can be fetched."""


def obtain_go(
    environ: Mapping[str, str],
    cache: Path,
    on_bytes: Callable[[int, int | None], None],
    transport: httpx.BaseTransport | None = None,
) -> str:
    """Return the path of a `go` command: the user's, or one fetched below `cache`.

    Raises:
        NoGo: Why there is none.
    """
    found = find_go(environ)
    if found:
        return found
    name = f"go{GO_VERSION}.{target()}"
    place = cache / name
    if not place.exists():
        if target() not in _SUMS:
            raise NoGo(f"Go is not installed, and byre knows none for {target()}")
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache) as scratch:
            archive = Path(scratch) / "go.zip"
            _download(_proxies(environ), name, archive, on_bytes, transport)
            _unpack(archive, name, Path(scratch) / name)
            (Path(scratch) / name).rename(place)
    return str(place / "bin" / "go")


def find_go(environ: Mapping[str, str]) -> str | None:
    """Return the user's `go` if it is new enough."""
    places = os.pathsep.join([environ.get("PATH", os.defpath), *_USUAL_PLACES])
    found = shutil.which("go", path=places)
    if found is None:
        return None
    try:
        # Outside every module: the version of this Go, not of one that it would fetch.
        finished = run(
            [found, "version"],
            environment={**environ, "GOTOOLCHAIN": "local"},
            cwd=Path("/"),
            timeout_seconds=20.0,
        )
    except (OSError, TimeoutError):
        return None
    version = re.search(r"go(\d+)\.(\d+)", " ".join(finished.lines))
    is_new = version is not None and (int(version[1]), int(version[2])) >= _OLDEST
    return found if is_new else None


def _proxies(environ: Mapping[str, str]) -> list[str]:
    listed = re.split(r"[,|]", environ.get("GOPROXY") or "https://proxy.golang.org")
    return [url.rstrip("/") for url in listed if url.startswith(("https://", "http://"))]


def _download(
    proxies: list[str],
    name: str,
    into: Path,
    on_bytes: Callable[[int, int | None], None],
    transport: httpx.BaseTransport | None,
) -> None:
    reasons = []
    limits = httpx.Timeout(30.0, connect=CONNECT_SECONDS)
    with httpx.Client(follow_redirects=True, timeout=limits, transport=transport) as client:
        for proxy in proxies:
            try:
                with (
                    client.stream(
                        "GET", f"{proxy}/golang.org/toolchain/@v/v0.0.1-{name}.zip"
                    ) as response,
                    into.open("wb") as file,
                ):
                    response.raise_for_status()
                    length = response.headers.get("content-length", "")
                    for chunk in response.iter_bytes(1 << 18):
                        file.write(chunk)
                        on_bytes(file.tell(), int(length) if length.isdigit() else None)
            except httpx.HTTPError as error:
                reasons.append(str(error).partition("\n")[0].lower() or type(error).__name__)
            else:
                return
    why = "; ".join(reasons) or "GOPROXY names no proxy"
    raise NoGo(f"Go is not installed, and its module cannot be fetched: {why}")


def _unpack(archive: Path, name: str, into: Path) -> None:
    prefix = f"golang.org/toolchain@v0.0.1-{name}/"
    lines = []
    try:
        with zipfile.ZipFile(archive) as packed:
            for entry in sorted(packed.namelist()):
                content = packed.read(entry)
                # The sum of a module: a digest of the list of its files' digests.
                lines.append(f"{hashlib.sha256(content).hexdigest()}  {entry}\n")
                path = into / entry.removeprefix(prefix)
                if not entry.startswith(prefix) or not path.resolve().is_relative_to(into):
                    raise NoGo(f"{entry} has no place in a Go toolchain")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                # Files of a module are not executable.
                if path.parent.name == "bin" or "pkg/tool" in entry:
                    path.chmod(0o755)
    except zipfile.BadZipFile as error:
        raise NoGo(f"what came instead of Go is no archive: {error}") from error
    total = base64.b64encode(hashlib.sha256("".join(lines).encode()).digest()).decode()
    if f"h1:{total}" != _SUMS[target()]:
        raise NoGo(f"the fetched Go has the sum h1:{total}, expected is {_SUMS[target()]}")
