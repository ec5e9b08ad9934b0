"""What would run: goldens of every command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datastore import config as configuration
from datastore.paths import Paths
from supervisor.flags import to_argv
from supervisor.plan import Listener, Plan, listeners, make_plan
from supervisor.planview import plan_to_json, plan_to_text

GOLDENS = Path(__file__).with_name("plans")
PATHS = Paths(Path("/data"), Path("/run/byre"), Path("/cache"), Path("/etc/byre/byre.yaml"))

CONFIGS = {
    "sqlite": "",
    "managed-etcd": "spec: {storage: {type: etcd}}",
    "external-etcd": """
spec:
  api: {address: 192.0.2.7, sans: [api.example.com]}
  storage:
    type: etcd
    etcd:
      externalCluster:
        endpoints: ["https://10.0.0.5:2379", "https://10.0.0.6:2379"]
        etcdPrefix: /cluster-a
        caFile: /tls/ca.crt
        clientCertFile: /tls/client.crt
        clientKeyFile: /tls/client.key
""",
    "postgresql": """
spec:
  storage:
    kine:
      dataSource: postgres://byre:secret@db-1,db-2/kubernetes
      prefix: cluster_a_
      caFile: /tls/ca.crt
      extraArgs: {name: one}
  installConfig: {users: {kineUser: root}}
""",
    "arguments": """
spec:
  api: {port: 7443, extraArgs: {event-ttl: 10s, profiling: true}}
  controllerManager: {extraArgs: {controllers: "*,-ttl"}}
  scheduler: {extraArgs: {secure-port: 20259}}
  network: {serviceCIDR: 10.0.0.0/24, podCIDR: 10.1.0.0/16, clusterDomain: example.org}
""",
}


def plan_of(name: str, *, single: bool = True) -> Plan:
    return make_plan(
        configuration.parse(CONFIGS[name]),
        PATHS,
        single=single,
        binary=lambda program: Path("/bin") / program,
    )


def shown(plan: Plan) -> str:
    """The plan without what depends on this machine: the interpreter and where we are."""
    lines = plan_to_text(plan).splitlines()
    kept = [line for line in lines if not line.startswith("PYTHONPATH=")]
    return "\n".join("PYTHON \\" if "python" in line else line for line in kept) + "\n"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_plan_is_the_golden_one(name: str) -> None:
    assert shown(plan_of(name)) == (GOLDENS / f"{name}.txt").read_text()


def test_without_single_only_the_api_server_runs_beside_the_store() -> None:
    names = [spec.name for spec in plan_of("managed-etcd", single=False).processes]
    assert names == ["etcd", "kube-apiserver"]


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("name", ["external-etcd", "postgresql"])
def test_on_a_store_that_others_may_share_everything_runs_and_leaders_are_elected(
    name: str, *, single: bool
) -> None:
    components = plan_of(name, single=single).components
    assert [spec.name for spec in components] == [
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    ]
    for spec in components[1:]:
        assert "--leader-elect=true" in spec.argv


def test_an_argument_of_the_user_replaces_the_default() -> None:
    assert to_argv({"a": "1", "b": "2"}, {"a": "3", "c": "4"}) == ["--a=3", "--b=2", "--c=4"]


def test_the_listeners_of_a_plan_are_all_tcp_addresses() -> None:
    assert listeners(plan_of("managed-etcd")) == (
        Listener("kube-apiserver", "127.0.0.1", 6443),
        Listener("kube-controller-manager", "127.0.0.1", 10257),
        Listener("kube-scheduler", "127.0.0.1", 10259),
        Listener("etcd", "127.0.0.1", 2379),
        Listener("etcd", "127.0.0.1", 2380),
    )


@pytest.mark.parametrize("show", [plan_to_text, plan_to_json])
def test_no_secret_is_in_a_plan(show: object) -> None:
    assert callable(show)
    text = show(plan_of("sqlite"))
    assert "BYRE_DATASTORE" in text
    assert "state.db" not in text
    assert "secret@" not in show(plan_of("postgresql"))


def test_the_plan_as_json_has_every_process() -> None:
    content = json.loads(plan_to_json(plan_of("sqlite")))
    assert [process["name"] for process in content["processes"]] == [
        "datastore",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    ]


def test_an_address_off_loopback_is_advertised_and_reconciled() -> None:
    argv = plan_of("external-etcd").components[0].argv
    assert "--advertise-address=192.0.2.7" in argv
    assert not [flag for flag in argv if flag.startswith("--endpoint-reconciler-type")]
