"""How kube-controller-manager is run."""

from __future__ import annotations

from pathlib import Path

from datastore.launch import HttpProbe, ProcessSpec
from datastore.schema import Config
from supervisor.certificates import ClusterPki
from supervisor.flags import to_argv

NAME = "kube-controller-manager"
PORT = "10257"


def describe_controller_manager(
    config: Config, pki: ClusterPki, binary: Path, *, elects: bool
) -> ProcessSpec:
    """Return kube-controller-manager; the only one of a cluster elects no leader."""
    extra = config.spec.controller_manager.extra_args
    probe = HttpProbe(
        f"https://127.0.0.1:{extra.get('secure-port', PORT)}/healthz",
        ca=pki.ca.cert,
        timeout_seconds=5,
    )
    return ProcessSpec(
        NAME,
        [str(binary), *to_argv(_flags(config, pki, elects=elects), extra)],
        readiness=probe,
        liveness=probe,
        grace_seconds=10,
    )


def _flags(config: Config, pki: ClusterPki, *, elects: bool) -> dict[str, str]:
    kubeconfig = str(pki.kubeconfig("controller-manager"))
    server = pki.pair("controller-manager-server")
    return {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "secure-port": PORT,
        "tls-cert-file": str(server.cert),
        "tls-private-key-file": str(server.key),
        "tls-min-version": "VersionTLS12",
        "client-ca-file": str(pki.ca.cert),
        "requestheader-client-ca-file": str(pki.pair("front-proxy-ca").cert),
        "root-ca-file": str(pki.ca.cert),
        "cluster-signing-cert-file": str(pki.ca.cert),
        "cluster-signing-key-file": str(pki.ca.key),
        "service-account-private-key-file": str(pki.service_account.key),
        "use-service-account-credentials": "true",
        "allocate-node-cidrs": "true",
        "cluster-cidr": config.spec.network.pod_cidr,
        "service-cluster-ip-range": config.spec.network.service_cidr,
        "cluster-name": "byre",
        "leader-elect": str(elects).lower(),
        "profiling": "false",
    }
