"""Download a program of an official release and verify it; nothing half-made is left."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from supervisor.releases import Program, target

CONNECT_SECONDS: Final = 4.0
"""An unreachable host must not hold up the build that follows."""

_READ_SECONDS: Final = 30.0
_CHUNK: Final = 1 << 18
_DIGEST: Final = re.compile(r"\b[0-9a-f]{64}\b")


class FetchError(Exception):
    """A download that did not work, and why; `host` is set when it cannot be reached at all."""

    def __init__(self, reason: str, host: str = "") -> None:
        self.host = host
        super().__init__(reason)


def fetch(
    program: Program,
    directory: Path,
    on_bytes: Callable[[int, int | None], None],
    transport: httpx.BaseTransport | None = None,
) -> Path:
    """Download `program` below `directory` and return its file, verified but not executable.

    Raises:
        FetchError: The host does not answer, has no such file, or the digest does not fit.
    """
    limits = httpx.Timeout(_READ_SECONDS, connect=CONNECT_SECONDS)
    with httpx.Client(follow_redirects=True, timeout=limits, transport=transport) as client:
        try:
            expected = program.sha256.get(target()) or _published_digest(client, program)
            archive = directory / "download"
            found = _stream(client, program.download.url, archive, on_bytes)
        except httpx.HTTPStatusError as error:
            raise FetchError(
                f"{error.request.url} answers HTTP {error.response.status_code}"
            ) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            host = error.request.url.host
            raise FetchError(f"{host} cannot be reached ({_words(error)})", host) from error
        except httpx.HTTPError as error:
            raise FetchError(f"{program.download.url}: {_words(error)}") from error
    if found != expected:
        raise FetchError(
            f"{program.download.url} has SHA-256 {found}, its publisher says {expected}"
        )
    return _extract(archive, program.download.member, directory / program.name)


def _published_digest(client: httpx.Client, program: Program) -> str:
    url = program.download.digest_url
    text = client.get(url).raise_for_status().text
    name = program.download.url.rpartition("/")[2]
    lines = [line for line in text.splitlines() if _DIGEST.search(line)]
    # dl.k8s.io publishes the bare digest, the others lines of `digest  file`.
    named = [line for line in lines if line.split()[-1].lstrip("*").rpartition("/")[2] == name]
    if not named and not (len(lines) == 1 and len(lines[0].split()) == 1):
        raise FetchError(f"{url} holds no SHA-256 of {name}")
    match = _DIGEST.search((named or lines)[0])
    assert match is not None
    return match[0]


def _stream(
    client: httpx.Client, url: str, into: Path, on_bytes: Callable[[int, int | None], None]
) -> str:
    digest, done = hashlib.sha256(), 0
    with client.stream("GET", url) as response, into.open("wb") as file:
        response.raise_for_status()
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdigit() else None
        for chunk in response.iter_bytes(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
            done += len(chunk)
            on_bytes(done, total)
    return digest.hexdigest()


def _extract(archive: Path, member: str, into: Path) -> Path:
    if not member:
        return archive.rename(into)
    try:
        with tarfile.open(archive) as tar:
            source = tar.extractfile(member)
            if source is None:
                raise FetchError(f"{member} in the release archive is not a file")
            with source, into.open("wb") as file:
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
    except (tarfile.TarError, KeyError) as error:
        raise FetchError(f"the release archive has no {member} ({_words(error)})") from error
    archive.unlink()
    return into


def _words(error: Exception) -> str:
    # "[Errno -2] Name or service not known": people need the words only.
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error) or type(error).__name__).lower()
