"""The cluster's certificates."""

from __future__ import annotations

import base64
import ipaddress
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from datastore import config as configuration
from datastore.paths import Paths
from datastore.pki import check_pair
from supervisor.certificates import api_url, ensure_cluster_pki, service_addresses

CONFIG = """
spec:
  api: {externalAddress: api.example.com, sans: [10.9.8.7, other.example.com]}
  network: {serviceCIDR: "10.0.0.0/24,fd00::/112", clusterDomain: example.org}
"""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path / "run", tmp_path / "cache", tmp_path / "byre.yaml")


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_api_servers_certificate_covers_every_name_it_is_called_by(paths: Paths) -> None:
    pki = ensure_cluster_pki(configuration.parse(CONFIG), paths)
    names = load(pki.pair("apiserver").cert).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    dns = set(names.value.get_values_for_type(x509.DNSName))
    assert dns >= {"kubernetes", "kubernetes.default.svc.example.org", "localhost"}
    assert dns >= {"api.example.com", "other.example.com"}
    addresses = names.value.get_values_for_type(x509.IPAddress)
    expected = ("127.0.0.1", "::1", "10.0.0.1", "fd00::1", "10.9.8.7")
    assert set(addresses) == {ipaddress.ip_address(one) for one in expected}


def test_private_files_are_private(paths: Paths) -> None:
    ensure_cluster_pki(configuration.parse(""), paths)
    private = [*paths.pki_dir.glob("*.key"), *paths.pki_dir.glob("*.conf")]
    assert len(private) >= 10
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE(paths.pki_dir.stat().st_mode) == 0o700


def test_every_leaf_is_signed_by_its_own_authority(paths: Paths) -> None:
    pki = ensure_cluster_pki(configuration.parse(""), paths)
    for name in ("apiserver", "admin", "scheduler", "controller-manager", "probe"):
        pair = pki.pair(name)
        check_pair(pki.ca.cert, pair.cert, pair.key)
    front = pki.pair("front-proxy-client")
    check_pair(pki.pair("front-proxy-ca").cert, front.cert, front.key)


def test_a_second_time_nothing_is_changed(paths: Paths) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in paths.pki_dir.iterdir() if path.is_file()}

    ensure_cluster_pki(configuration.parse(""), paths)
    before = contents()
    ensure_cluster_pki(configuration.parse(""), paths)
    assert contents() == before


def test_a_new_port_reaches_the_kubeconfig(paths: Paths) -> None:
    ensure_cluster_pki(configuration.parse(""), paths)
    pki = ensure_cluster_pki(configuration.parse("spec: {api: {port: 7443}}"), paths)
    content = yaml.safe_load(pki.kubeconfig("admin").read_text())
    assert content["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:7443"


def test_the_admin_kubeconfig_holds_the_masters_certificate(paths: Paths) -> None:
    pki = ensure_cluster_pki(configuration.parse(""), paths)
    user = yaml.safe_load(pki.kubeconfig("admin").read_text())["users"][0]["user"]
    pem = base64.b64decode(user["client-certificate-data"])
    subject = x509.load_pem_x509_certificate(pem).subject.rfc4514_string()
    assert "O=system:masters" in subject


@pytest.mark.parametrize(
    ("api", "url"),
    [
        ("{}", "https://127.0.0.1:6443"),
        ("{address: 0.0.0.0}", "https://127.0.0.1:6443"),
        ('{address: "::"}', "https://[::1]:6443"),
        ('{address: "fd00::7", port: 7443}', "https://[fd00::7]:7443"),
        ("{extraArgs: {secure-port: 8443}}", "https://127.0.0.1:8443"),
    ],
)
def test_the_url_of_the_api_server(api: str, url: str) -> None:
    assert api_url(configuration.parse(f"spec: {{api: {api}}}")) == url


def test_the_first_address_of_a_service_network() -> None:
    assert service_addresses(configuration.parse("")) == ["10.96.0.1"]
