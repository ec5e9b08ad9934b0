"""How kube-scheduler is run."""

from __future__ import annotations

from pathlib import Path

from datastore.launch import HttpProbe, ProcessSpec
from datastore.schema import Config
from supervisor.certificates import ClusterPki
from supervisor.flags import to_argv

NAME = "kube-scheduler"
PORT = "10259"


def describe_scheduler(
    config: Config, pki: ClusterPki, binary: Path, *, elects: bool
) -> ProcessSpec:
    """Return kube-scheduler; the only one of a cluster elects no leader."""
    extra = config.spec.scheduler.extra_args
    probe = HttpProbe(
        f"https://127.0.0.1:{extra.get('secure-port', PORT)}/healthz",
        ca=pki.ca.cert,
        timeout_seconds=5,
    )
    return ProcessSpec(
        NAME,
        [str(binary), *to_argv(_flags(pki, elects=elects), extra)],
        readiness=probe,
        liveness=probe,
        grace_seconds=10,
    )


def _flags(pki: ClusterPki, *, elects: bool) -> dict[str, str]:
    kubeconfig = str(pki.kubeconfig("scheduler"))
    server = pki.pair("scheduler-server")
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
        "leader-elect": str(elects).lower(),
        "profiling": "false",
    }
