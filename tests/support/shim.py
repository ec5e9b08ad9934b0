"""The shim as users run it: `python -m datastore serve`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.running import Listen, Server, free_port


def shim(
    directory: Path, backend: str, flags: Sequence[str] = (), listen: Listen | None = None
) -> Server:
    """Describe a shim over `backend`, which keeps everything under `directory`."""
    return shim_on(local_store(backend, directory), directory, backend, flags, listen)


def local_store(backend: str, directory: Path) -> str:
    """Return the URL of an empty store that needs no database server."""
    return {"memory": "memory://", "sqlite": f"sqlite:///{directory / 'shim.db'}"}[backend]


def shim_on(
    datastore: str,
    directory: Path,
    name: str,
    flags: Sequence[str] = (),
    listen: Listen | None = None,
) -> Server:
    """Describe a shim called `name` over the datastore of a URL."""
    listen = listen or Listen.tcp()
    url, http_url = listen.url, f"http://127.0.0.1:{free_port()}"
    argv = [
        sys.executable,
        "-m",
        "datastore",
        "serve",
        f"--datastore={datastore}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-metrics-urls={http_url}",
        "--log-level=warn",
        *flags,
    ]
    return Server(name, argv, listen.target, http_url, directory, listen.credentials)
