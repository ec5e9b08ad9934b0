"""Make the certificates and passwords of a stack, and give each service what it may have.

    credentials.py cluster            authorities, certificates, kubeconfigs of the control plane
    credentials.py database           the database's authority, certificate and password
    credentials.py database --renew   the same with a new password

Authorities stay in the volume mounted on ``/var/lib/byre``, which no other service has. A
directory below ``/export`` is the volume of one service. What is still good is kept, so that this
runs at every start.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from datastore.errors import CertificateError, UnusablePath
from datastore.etcd.managed import COMMON_NAME
from datastore.paths import Paths
from datastore.pki import Authority, KeyPair, Leaf, write_private
from datastore.schema import Config
from supervisor.certificates import LOOPBACK, ClusterPki, ensure_cluster_pki, to_kubeconfig

OWNER: Final = 999
"""The user and group of every service."""

EXPORT: Final = Path("/export")
GIVEN_PASSWORD: Final = Path("/run/secrets/database-password")
PASSWORD_BYTES: Final = 32

Files = Mapping[str, Path]
"""Name of a file in a service's volume, to the file that it is a copy of."""


def cluster(paths: Paths, port: int) -> Mapping[str, Files]:
    """Make what the control plane needs; return the files of each service."""
    config = Config.model_validate({"spec": {"api": {"port": port, "sans": ["kube-apiserver"]}}})
    pki = ensure_cluster_pki(config, paths)
    for name, user in (
        ("controller-manager", "system:kube-controller-manager"),
        ("scheduler", "system:kube-scheduler"),
    ):
        _kubeconfig(pki, name, user, "https://kube-apiserver:6443")
    _kubeconfig(pki, "probe", "byre-probe", "https://127.0.0.1:6443")
    store = Authority.ensure(paths.datastore_pki_dir, "ca", COMMON_NAME)
    # etcd's gateway dials its own server, so the server is a client too.
    server = store.issue(_server("server", "datastore", client=True))
    client = store.issue(Leaf("apiserver-etcd-client", "kube-apiserver", client=True))
    front_ca = {"front-proxy-ca.crt": pki.pair("front-proxy-ca").cert}
    return {
        "datastore": {"ca.crt": store.cert, **_both(server)},
        "kube-apiserver": {
            "ca.crt": pki.ca.cert,
            "datastore-ca.crt": store.cert,
            "probe.conf": pki.kubeconfig("probe"),
            **_both(client),
            **_both(pki.pair("apiserver")),
            **_both(pki.pair("apiserver-kubelet-client")),
            **_both(pki.pair("front-proxy-client")),
            **_both(pki.service_account),
            **front_ca,
        },
        "kube-controller-manager": {
            "controller-manager.conf": pki.kubeconfig("controller-manager"),
            "sa.key": pki.service_account.key,
            **_both(pki.ca),
            **_both(pki.pair("controller-manager-server")),
            **front_ca,
        },
        "kube-scheduler": {
            "scheduler.conf": pki.kubeconfig("scheduler"),
            "ca.crt": pki.ca.cert,
            **_both(pki.pair("scheduler-server")),
            **front_ca,
        },
        "admin": {"admin.conf": pki.kubeconfig("admin")},
    }


def database(paths: Paths, *, renew: bool) -> Mapping[str, Files]:
    """Make what a database and its client need; return the files of both."""
    authority = Authority.ensure(paths.pki_dir, "ca", "byre-database-ca")
    server = authority.issue(_server("server", "database"))
    password = _password(paths.data_dir / "password", renew=renew)
    return {
        "database": {"ca.crt": authority.cert, "password": password, **_both(server)},
        "database-client": {"ca.crt": authority.cert, "password": password},
    }


def export(volumes: Mapping[str, Files]) -> None:
    """Copy files into the volumes of the services, which alone can read them."""
    for volume, files in volumes.items():
        for name, source in files.items():
            place = EXPORT / volume / name
            content = source.read_bytes()
            if not place.exists() or place.read_bytes() != content:
                write_private(place, content)
            os.chown(place, OWNER, OWNER)


def _password(kept: Path, *, renew: bool) -> Path:
    """Return the file with the password: the user's own, the one made before, or a new one."""
    given = GIVEN_PASSWORD.read_text("utf-8").rstrip("\n") if GIVEN_PASSWORD.exists() else ""
    if "\n" in given or "\0" in given:
        raise CertificateError(GIVEN_PASSWORD, "must hold the password in one line")
    if given or renew or not kept.exists():
        write_private(kept, (given or secrets.token_urlsafe(PASSWORD_BYTES)).encode())
    return kept


def _kubeconfig(pki: ClusterPki, name: str, user: str, url: str) -> None:
    text = to_kubeconfig(url, pki.ca.cert, pki.pair(name), user)
    write_private(pki.kubeconfig(name), text.encode())


def _server(name: str, host: str, *, client: bool = False) -> Leaf:
    return Leaf(
        name, host, dns=(host, "localhost"), addresses=LOOPBACK, server=True, client=client
    )


def _both(pair: KeyPair) -> Files:
    return {pair.cert.name: pair.cert, pair.key.name: pair.key}


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("cluster", "database"))
    parser.add_argument("--renew", action="store_true", help="make a new password")
    arguments = parser.parse_args()
    paths = Paths.default(data_dir=Path("/var/lib/byre"))
    try:
        if arguments.what == "cluster":
            export(cluster(paths, int(os.environ.get("BYRE_API_PORT") or 6443)))
        else:
            export(database(paths, renew=arguments.renew))
    except (CertificateError, UnusablePath) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
