"""How kube-controller-manager and kube-scheduler are run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from datastore.launch import HttpProbe, ProcessSpec
from datastore.schema import Config
from supervisor.certificates import ClusterPki
from supervisor.flags import to_argv


class _Kind(NamedTuple):
    """What tells one from the other."""

    name: str
    user: str
    """Its kubeconfig, and the beginning of its serving certificate's name."""
    port: str


_CONTROLLER_MANAGER = _Kind("kube-controller-manager", "controller-manager", "10257")
_SCHEDULER = _Kind("kube-scheduler", "scheduler", "10259")

CONTROLLER_MANAGER = _CONTROLLER_MANAGER.name
SCHEDULER = _SCHEDULER.name


def describe_controller_manager(
    config: Config, pki: ClusterPki, binary: Path, *, elects: bool
) -> ProcessSpec:
    """Return kube-controller-manager; the only one of a cluster elects no leader."""
    flags = {
        "root-ca-file": str(pki.ca.cert),
        "cluster-signing-cert-file": str(pki.ca.cert),
        "cluster-signing-key-file": str(pki.ca.key),
        "service-account-private-key-file": str(pki.service_account.key),
        "use-service-account-credentials": "true",
        "allocate-node-cidrs": "true",
        "cluster-cidr": config.spec.network.pod_cidr,
        "service-cluster-ip-range": config.spec.network.service_cidr,
        "cluster-name": "byre",
    }
    extra = config.spec.controller_manager.extra_args
    return _describe(_CONTROLLER_MANAGER, binary, pki, flags, extra, elects=elects)


def describe_scheduler(
    config: Config, pki: ClusterPki, binary: Path, *, elects: bool
) -> ProcessSpec:
    """Return kube-scheduler; the only one of a cluster elects no leader."""
    extra = config.spec.scheduler.extra_args
    return _describe(_SCHEDULER, binary, pki, {}, extra, elects=elects)


def _describe(
    kind: _Kind,
    binary: Path,
    pki: ClusterPki,
    flags: Mapping[str, str],
    extra: Mapping[str, str],
    *,
    elects: bool,
) -> ProcessSpec:
    probe = HttpProbe(
        f"https://127.0.0.1:{extra.get('secure-port', kind.port)}/healthz",
        ca=pki.ca.cert,
        timeout_seconds=5,
    )
    kubeconfig = str(pki.kubeconfig(kind.user))
    server = pki.pair(f"{kind.user}-server")
    every = {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "secure-port": kind.port,
        "tls-cert-file": str(server.cert),
        "tls-private-key-file": str(server.key),
        "tls-min-version": "VersionTLS12",
        "client-ca-file": str(pki.ca.cert),
        "requestheader-client-ca-file": str(pki.pair("front-proxy-ca").cert),
        **flags,
        "leader-elect": str(elects).lower(),
        "profiling": "false",
    }
    return ProcessSpec(
        kind.name,
        [str(binary), *to_argv(every, extra)],
        readiness=probe,
        liveness=probe,
        grace_seconds=10,
    )
