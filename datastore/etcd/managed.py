"""An etcd member that byre runs: certificates of its own authority, loopback for clients."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from datastore.endpoint import ClientTls, Endpoint
from datastore.errors import NotReady
from datastore.etcd.flags import Member, check_extra_args, member_flags
from datastore.launch import HttpProbe, ProcessSpec
from datastore.paths import Paths, make_directory
from datastore.pki import Authority, KeyPair, Leaf
from datastore.probe import etcd_probe, probe
from datastore.registry import Binary
from datastore.schema import Etcd

PROCESS: Final = "etcd"
COMMON_NAME: Final = "byre-datastore-ca"

_LOCAL_NAMES: Final = ("localhost",)
_LOCAL_ADDRESSES: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ManagedEtcd:
    """One etcd member with TLS for peers and clients."""

    pki_dir: Path
    data_dir: Path
    peer_address: str
    binary: Binary
    extra_args: Mapping[str, str] = field(default_factory=dict)
    kind: str = "managed etcd"
    shared: bool = False
    binaries: Sequence[str] = ("etcd",)

    @classmethod
    def from_config(cls, config: Etcd, paths: Paths, binary: Binary) -> Self:
        """Return the member that a configuration describes; raises ConfigError."""
        check_extra_args(config.extra_args)
        return cls(
            pki_dir=paths.datastore_pki_dir,
            data_dir=paths.etcd_dir,
            peer_address=config.peer_address,
            binary=binary,
            extra_args=config.extra_args,
        )

    @property
    def endpoint(self) -> Endpoint:
        """The member's client URL with kube-apiserver's client certificate."""
        client = self._pair("apiserver-etcd-client")
        return Endpoint(self._member.client_urls, ClientTls(self._ca, client.cert, client.key))

    @property
    def place(self) -> str:
        """The URLs."""
        return ", ".join(self.endpoint.urls)

    def processes(self) -> Sequence[ProcessSpec]:
        """Return the member."""
        url, tls = self.endpoint.urls[0], self.endpoint.tls
        assert tls is not None
        return (
            ProcessSpec(
                name=PROCESS,
                argv=(str(self.binary("etcd")), *member_flags(self._member)),
                readiness=etcd_probe(url, tls),
                liveness=HttpProbe(f"{url}/livez", tls.ca, tls.cert, tls.key, 10.0),
                ready_seconds=120.0,
            ),
        )

    def prepare(self) -> None:
        """Make the data directory, the datastore's authority and its three certificates."""
        make_directory(self.data_dir)
        authority = Authority.ensure(self.pki_dir, "ca", COMMON_NAME)
        for leaf in self._leaves():
            authority.issue(leaf)

    async def check(self) -> None:
        """Return when the member answers a linearizable read; raises NotReady."""
        url, tls = self.endpoint.urls[0], self.endpoint.tls
        try:
            await probe(etcd_probe(url, tls))
        except NotReady as error:
            raise NotReady(
                f"etcd does not answer: {error.reason}",
                f"byre status and byre logs {PROCESS} tell more",
            ) from error

    @property
    def _ca(self) -> Path:
        return self.pki_dir / "ca.crt"

    @property
    def _member(self) -> Member:
        return Member(
            data_dir=self.data_dir,
            peer_address=self.peer_address,
            ca=self._ca,
            server=self._pair("server"),
            peer=self._pair("peer"),
            extra_args=self.extra_args,
        )

    def _pair(self, name: str) -> KeyPair:
        return KeyPair(self.pki_dir / f"{name}.crt", self.pki_dir / f"{name}.key")

    def _leaves(self) -> Sequence[Leaf]:
        member = self._member
        return (
            # etcd's gateway dials its own server, so the server is a client too.
            _leaf("server", "etcd-server", member.client_urls),
            _leaf("peer", "etcd-peer", member.peer_urls),
            Leaf("apiserver-etcd-client", "kube-apiserver", client=True),
        )


def _leaf(name: str, common_name: str, urls: Sequence[str]) -> Leaf:
    dns, addresses = list(_LOCAL_NAMES), list(_LOCAL_ADDRESSES)
    for host in (urlsplit(url).hostname or "" for url in urls):
        kind = addresses if _is_address(host) else dns
        if host and host not in kind:
            kind.append(host)
    return Leaf(name, common_name, dns=dns, addresses=addresses, server=True, client=True)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
