"""A real etcd, the measure of every rule in these tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.running import Listen, Server, free_port


def etcd(
    binary: Path, directory: Path, flags: Sequence[str] = (), listen: Listen | None = None
) -> Server:
    """Describe a one-member etcd that keeps everything under `directory`."""
    listen = listen or Listen.tcp()
    url, peer_url = listen.url, f"http://127.0.0.1:{free_port()}"
    argv = [
        str(binary),
        "--name=default",
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--log-level=warn",
        "--unsafe-no-fsync",
        *flags,
    ]
    return Server("etcd", argv, listen.target, url, directory, listen.credentials)
