"""How kube-apiserver is run: its flags, and how to know that it serves."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from datastore.endpoint import Endpoint
from datastore.launch import HttpProbe, ProcessSpec
from datastore.schema import Config
from supervisor.certificates import ClusterPki, api_address, api_url
from supervisor.flags import to_argv

NAME = "kube-apiserver"

CIPHER_SUITES = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)


def describe_apiserver(
    config: Config, endpoint: Endpoint, pki: ClusterPki, binary: Path
) -> ProcessSpec:
    """Return kube-apiserver on `endpoint`."""
    url = api_url(config)
    argv = to_argv(_flags(config, pki), config.spec.api.extra_args)
    return ProcessSpec(
        NAME,
        [str(binary), *endpoint.apiserver_flags(), *argv],
        readiness=_probe(pki, f"{url}/readyz"),
        # A store that is away must not get kube-apiserver restarted: it recovers by itself.
        liveness=_probe(pki, f"{url}/livez?exclude=etcd"),
        ready_seconds=120,
        grace_seconds=25,
    )


def _probe(pki: ClusterPki, url: str) -> HttpProbe:
    pair = pki.pair("probe")
    return HttpProbe(url, ca=pki.ca.cert, cert=pair.cert, key=pair.key, timeout_seconds=5)


def _flags(config: Config, pki: ClusterPki) -> dict[str, str]:
    network = config.spec.network
    address = ipaddress.ip_address(api_address(config))
    issuer = f"https://kubernetes.default.svc.{network.cluster_domain}"
    flags = {
        "bind-address": str(address),
        "secure-port": str(config.spec.api.port),
        "allow-privileged": "true",
        "anonymous-auth": "false",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "profiling": "false",
        "service-cluster-ip-range": network.service_cidr,
        "service-account-issuer": issuer,
        "service-account-jwks-uri": f"{issuer}/openid/v1/jwks",
        **_certificate_flags(pki),
        "tls-min-version": "VersionTLS12",
        "tls-cipher-suites": ",".join(CIPHER_SUITES),
    }
    if not address.is_unspecified:
        flags["advertise-address"] = str(address)
    if address.is_loopback:
        # kube-apiserver refuses to publish a loopback address as the endpoint of a service.
        flags["endpoint-reconciler-type"] = "none"
    return flags


def _certificate_flags(pki: ClusterPki) -> dict[str, str]:
    server, kubelet, front = (
        pki.pair(name) for name in ("apiserver", "apiserver-kubelet-client", "front-proxy-client")
    )
    return {
        "client-ca-file": str(pki.ca.cert),
        "tls-cert-file": str(server.cert),
        "tls-private-key-file": str(server.key),
        "kubelet-certificate-authority": str(pki.ca.cert),
        "kubelet-client-certificate": str(kubelet.cert),
        "kubelet-client-key": str(kubelet.key),
        "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
        "proxy-client-cert-file": str(front.cert),
        "proxy-client-key-file": str(front.key),
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-client-ca-file": str(pki.pair("front-proxy-ca").cert),
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "service-account-key-file": str(pki.service_account.cert),
        "service-account-signing-key-file": str(pki.service_account.key),
    }
