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
    stores = {"memory": "memory://", "sqlite": f"sqlite:///{directory / 'shim.db'}"}
    listen = listen or Listen.tcp()
    url, http_url = listen.url, f"http://127.0.0.1:{free_port()}"
    argv = [
        sys.executable,
        "-m",
        "datastore",
        "serve",
        f"--datastore={stores[backend]}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-metrics-urls={http_url}",
        "--log-level=warn",
        *flags,
    ]
    return Server(backend, argv, listen.target, http_url, directory, listen.credentials)
