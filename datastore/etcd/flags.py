"""The command line of a managed etcd member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from datastore.errors import ConfigError, Problem
from datastore.pki import KeyPair
from datastore.registry import taken_flags

CLIENT_PORT: Final = 2379
PEER_PORT: Final = 2380

_CIPHERS: Final = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)

# Without these the member is not the one that byre vouches for.
_MANAGED: Final = frozenset({
    "data-dir", "cert-file", "key-file", "trusted-ca-file", "client-cert-auth",
    "peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-client-cert-auth",
    "auto-tls", "peer-auto-tls", "config-file", "initial-cluster", "initial-cluster-state",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """What a member's command line is made from."""

    data_dir: Path
    peer_address: str
    ca: Path
    server: KeyPair
    peer: KeyPair
    extra_args: Mapping[str, str] = field(default_factory=dict)

    @property
    def client_urls(self) -> Sequence[str]:
        """Where clients reach it."""
        listen = f"https://127.0.0.1:{CLIENT_PORT}"
        return self._urls("advertise-client-urls", "listen-client-urls", listen)

    @property
    def peer_urls(self) -> Sequence[str]:
        """Where other members reach it."""
        host = f"[{self.peer_address}]" if ":" in self.peer_address else self.peer_address
        listen = f"https://{host}:{PEER_PORT}"
        return self._urls("initial-advertise-peer-urls", "listen-peer-urls", listen)

    def _urls(self, advertised: str, listened: str, default: str) -> Sequence[str]:
        text = self.extra_args.get(advertised) or self.extra_args.get(listened) or default
        return tuple(text.split(","))


def check_extra_args(extra_args: Mapping[str, str]) -> None:
    """Refuse what byre has to decide itself; raises ConfigError naming every such flag."""
    problems = list(taken_flags(extra_args, _MANAGED, "spec.storage.etcd"))
    for name in ("listen-client-urls", "advertise-client-urls", "listen-peer-urls"):
        value = extra_args.get(name, "")
        if value and not all(url.startswith("https://") for url in value.split(",")):
            path = f"spec.storage.etcd.extraArgs.{name}"
            problems.append(Problem(path, value, "must be https:// URLs"))
    if problems:
        raise ConfigError("spec.storage", problems)


def member_flags(member: Member) -> Sequence[str]:
    """Return etcd's flags in a fixed order; extra arguments replace those of the same name."""
    clients, peers = ",".join(member.client_urls), ",".join(member.peer_urls)
    name = member.extra_args.get("name", "default")
    flags = {
        "name": name,
        "data-dir": str(member.data_dir),
        "listen-client-urls": clients,
        "advertise-client-urls": clients,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": ",".join(f"{name}={url}" for url in member.peer_urls),
        "initial-cluster-state": "new",
        "client-cert-auth": "true",
        "trusted-ca-file": str(member.ca),
        "cert-file": str(member.server.cert),
        "key-file": str(member.server.key),
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": str(member.ca),
        "peer-cert-file": str(member.peer.cert),
        "peer-key-file": str(member.peer.key),
        "tls-min-version": "TLS1.2",
        "cipher-suites": ",".join(_CIPHERS),
        # Ordinary clusters reach etcd's 2 GiB; 8 GiB is the most that it recommends.
        "quota-backend-bytes": str(8 << 30),
        # kube-apiserver >= 1.31 serves consistent lists from its cache and relies on progress.
        "watch-progress-notify-interval": "5s",
        # A damaged file is found before it is served.
        "feature-gates": "InitialCorruptCheck=true",
        "log-level": "info",
    }
    return [f"--{flag}={value}" for flag, value in {**flags, **member.extra_args}.items()]
