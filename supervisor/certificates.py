"""The cluster's own certificates and keys, and the kubeconfigs made of them.

The datastore's certificate authority is another one (`datastore/pki.py`), so that a client
certificate of the cluster opens no door to the store.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from datastore.paths import Paths, make_directory
from datastore.pki import Authority, KeyPair, Leaf, ensure_signing_pair, write_private
from datastore.schema import Config

LOOPBACK = ("127.0.0.1", "::1")
MASTERS = ("system:masters",)


@dataclass(frozen=True, slots=True)
class ClusterPki:
    """Where the files are; making one makes no file."""

    directory: Path

    def pair(self, name: str) -> KeyPair:
        """Return the certificate and key called `name`."""
        return KeyPair(self.directory / f"{name}.crt", self.directory / f"{name}.key")

    def kubeconfig(self, name: str) -> Path:
        """Return the kubeconfig called `name`."""
        return self.directory / f"{name}.conf"

    @property
    def ca(self) -> KeyPair:
        """The authority of API server, its clients and kubelets."""
        return self.pair("ca")

    @property
    def service_account(self) -> KeyPair:
        """The pair that signs service account tokens: public key and private key."""
        return KeyPair(self.directory / "sa.pub", self.directory / "sa.key")


def api_address(config: Config) -> str:
    """Return the address that kube-apiserver listens on; loopback unless one is configured."""
    return config.spec.api.address or "127.0.0.1"


def api_url(config: Config) -> str:
    """Return the URL of the API server as seen from this machine."""
    address = ipaddress.ip_address(api_address(config))
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    host = f"[{address}]" if address.version == 6 else str(address)
    port = config.spec.api.extra_args.get("secure-port", str(config.spec.api.port))
    return f"https://{host}:{port}"


def service_addresses(config: Config) -> list[str]:
    """Return the first address of each service network: the ``kubernetes`` service's."""
    ranges = config.spec.api.extra_args.get(
        "service-cluster-ip-range", config.spec.network.service_cidr
    )
    return [str(ipaddress.ip_network(part.strip())[1]) for part in ranges.split(",")]


def ensure_cluster_pki(config: Config, paths: Paths) -> ClusterPki:
    """Make what is missing, re-issue what is about to expire or no longer fits; idempotent."""
    pki = ClusterPki(paths.pki_dir)
    make_directory(pki.directory)
    ca = Authority.ensure(pki.directory, "ca", "kubernetes-ca")
    for leaf in _leaves(config):
        ca.issue(leaf, pki.directory)
    front = Authority.ensure(pki.directory, "front-proxy-ca", "kubernetes-front-proxy-ca")
    front.issue(Leaf("front-proxy-client", "front-proxy-client", client=True), pki.directory)
    ensure_signing_pair(pki.directory, "sa")
    url = api_url(config)
    for name, user in (
        ("admin", "kubernetes-admin"),
        ("controller-manager", "system:kube-controller-manager"),
        ("scheduler", "system:kube-scheduler"),
    ):
        text = to_kubeconfig(url, pki.ca.cert, pki.pair(name), user)
        path = pki.kubeconfig(name)
        if not path.exists() or path.read_text() != text:
            write_private(path, text.encode())
    return pki


def to_kubeconfig(url: str, ca: Path, pair: KeyPair, user: str) -> str:
    """Return a kubeconfig that holds its certificates, so that it can be copied elsewhere."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "byre", "cluster": {"server": url, "certificate-authority-data": _base64(ca)}}
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _base64(pair.cert),
                    "client-key-data": _base64(pair.key),
                },
            }
        ],
        "contexts": [{"name": "byre", "context": {"cluster": "byre", "user": user}}],
        "current-context": "byre",
    }
    return yaml.safe_dump(content, sort_keys=False)


def _leaves(config: Config) -> Sequence[Leaf]:
    dns, addresses = _server_names(config)
    return (
        Leaf("apiserver", "kube-apiserver", dns=dns, addresses=addresses, server=True),
        Leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", MASTERS, client=True),
        Leaf("admin", "kubernetes-admin", MASTERS, client=True),
        Leaf("controller-manager", "system:kube-controller-manager", client=True),
        Leaf("scheduler", "system:kube-scheduler", client=True),
        _local("controller-manager-server", "kube-controller-manager"),
        _local("scheduler-server", "kube-scheduler"),
        # May read /livez, /readyz and /version, as every authenticated user may, and no more.
        Leaf("probe", "byre-probe", client=True),
    )


def _local(name: str, common_name: str) -> Leaf:
    return Leaf(name, common_name, dns=("localhost",), addresses=LOOPBACK, server=True)


def _server_names(config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    domain = config.spec.network.cluster_domain
    dns = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    dns.append(f"kubernetes.default.svc.{domain}")
    addresses = [*LOOPBACK, *service_addresses(config), api_address(config)]
    for name in (config.spec.api.external_address, *config.spec.api.sans):
        if name:
            (addresses if _is_address(name) else dns).append(name)
    return tuple(dict.fromkeys(dns)), tuple(dict.fromkeys(addresses))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
