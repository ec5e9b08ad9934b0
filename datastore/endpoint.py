"""Where an etcd answers, and with which TLS files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM files with which a client speaks to the endpoint."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An etcd that kube-apiserver can use.

    `urls` are etcd client URLs: ``http(s)://host:port`` or ``unix:///path``. They carry no
    credentials, so the repr is safe to show.
    """

    urls: Sequence[str]
    tls: ClientTls | None = None
    prefix: str = "/registry"

    def apiserver_flags(self) -> Sequence[str]:
        """Return kube-apiserver's flags for this store, in a fixed order."""
        flags = [f"--etcd-servers={','.join(self.urls)}", f"--etcd-prefix={self.prefix}"]
        if self.tls:
            flags += [
                f"--etcd-cafile={self.tls.ca}",
                f"--etcd-certfile={self.tls.cert}",
                f"--etcd-keyfile={self.tls.key}",
            ]
        return flags
