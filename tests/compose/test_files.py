"""The stacks' files beside what byre itself runs: they must not drift apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from datastore.endpoint import ClientTls, Endpoint
from datastore.etcd.flags import Member, member_flags
from datastore.pki import KeyPair
from datastore.schema import Config
from supervisor import apiserver, controllers
from supervisor.certificates import ClusterPki
from tests.compose.stack import ROOT, STACKS

COMPOSE = ROOT / "compose"
PKI = Path("/etc/kubernetes")

# Inside a network of containers, where each has an address of its own.
DIFFERENCES: Mapping[str, Mapping[str, str | None]] = {
    "kube-apiserver": {
        "bind-address": "0.0.0.0",
        "advertise-address": None,
        "endpoint-reconciler-type": None,
    },
    "kube-controller-manager": {"flex-volume-plugin-dir": "/tmp/volume-plugins"},
    "kube-scheduler": {},
}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def to_flags(argv: list[str]) -> dict[str, str]:
    found = {}
    for argument in argv:
        name, _, value = argument.removeprefix("--").partition("=")
        assert name not in found
        found[name] = value
    return found


def own_flags() -> Mapping[str, dict[str, str]]:
    config, pki = Config(), ClusterPki(PKI)
    client = pki.pair("apiserver-etcd-client")
    tls = ClientTls(PKI / "datastore-ca.crt", client.cert, client.key)
    endpoint = Endpoint(("https://datastore:2379",), tls)
    specs = (
        apiserver.describe_apiserver(config, endpoint, pki, Path(apiserver.NAME)),
        controllers.describe_controller_manager(
            config, pki, Path(controllers.CONTROLLER_MANAGER), elects=False
        ),
        controllers.describe_scheduler(config, pki, Path(controllers.SCHEDULER), elects=False),
    )
    return {spec.name: to_flags(list(spec.argv[1:])) for spec in specs}


@pytest.mark.parametrize("component", DIFFERENCES)
def test_a_component_runs_with_the_flags_that_byre_gives_it(component):
    service = load(COMPOSE / "control-plane.yaml")["services"][component]
    program, *arguments = service["command"]
    wanted = {**own_flags()[component], **DIFFERENCES[component]}
    assert program == component
    assert to_flags(arguments) == {
        name: value for name, value in wanted.items() if value is not None
    }


def test_etcd_runs_with_the_flags_that_byre_gives_it():
    arguments = load(COMPOSE / "etcd" / "compose.yaml")["services"]["datastore"]["command"]
    folder = Path("/etc/byre/datastore")
    server = KeyPair(folder / "server.crt", folder / "server.key")
    extra = {
        "name": "datastore",
        "listen-client-urls": "https://0.0.0.0:2379",
        "advertise-client-urls": "https://datastore:2379",
        "listen-metrics-urls": "http://127.0.0.1:2381",
    }
    member = Member(
        Path("/var/lib/byre/etcd"), "127.0.0.1", folder / "ca.crt", server, server, extra
    )
    assert to_flags(arguments) == to_flags(list(member_flags(member)))


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_is_short_and_named_after_its_directory(stack):
    path = COMPOSE / stack / "compose.yaml"
    assert load(path)["name"] == f"byre-{stack}"
    assert len(path.read_text().splitlines()) <= 60


def test_only_the_api_is_published():
    ports = {
        name: service["ports"]
        for path in [*COMPOSE.glob("*.yaml"), *COMPOSE.glob("*/compose.yaml")]
        for name, service in load(path)["services"].items()
        if "ports" in service
    }
    assert ports == {"kube-apiserver": ["127.0.0.1:${BYRE_API_PORT:-6443}:6443"]}


def test_every_variable_is_described():
    readme = (COMPOSE / "README.md").read_text()
    for path in [*COMPOSE.glob("*.yaml"), *COMPOSE.glob("*/compose.yaml")]:
        for name in re.findall(r"\$\{(\w+)", path.read_text()):
            assert f"`{name}`" in readme
