from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from datastore.config import example, explicit_binaries, load, parse
from datastore.dsn import Dsn
from datastore.errors import ConfigError
from datastore.schema import Config

KINE = "spec: {storage: {kine: {dataSource: %s}}}"


class Bad(NamedTuple):
    text: str
    problem: str
    """One whole line of the message."""


BAD = {
    "broken YAML": Bad("spec: {", "line 1, column 8: not valid YAML: expected the node content, "
                       "but found '<stream end>'"),
    "tab": Bad("spec:\n\tapi:", "line 2, column 1: not valid YAML: found character '\\t' that "
               "cannot start any token"),
    "key twice": Bad("spec:\n  api: {}\n  api: {}",
                     "line 3, column 3: not valid YAML: the key 'api' is given twice"),
    "not a mapping": Bad("- spec", "must be a mapping (found a list)"),
    "unknown key": Bad("spek: {}", "spek: unknown key (found a mapping); did you mean spec?"),
    "wrong case": Bad("spec: {storage: {kine: {datasource: sqlite:///a/b}}}",
                      "spec.storage.kine.datasource: unknown key (found sqlite:///a/b); "
                      "did you mean dataSource?"),
    "k0s only": Bad("spec: {konnectivity: {}}",
                    "spec.konnectivity: k0s has this key, byre does not; leave it out"),
    "type": Bad("spec: {storage: {type: ectd}}",
                "spec.storage.type: must be kine or etcd (found ectd); did you mean etcd?"),
    "type missing": Bad("spec: {storage: {etcd: {}}}",
                        "spec.storage.type: is required beside an etcd section: etcd or kine"),
    "port": Bad("spec: {api: {port: 70000}}",
                "spec.api.port: must be at most 65535 (found 70000)"),
    "port zero": Bad("spec: {api: {port: 0}}", "spec.api.port: must be at least 1 (found 0)"),
    "port text": Bad("spec: {api: {port: '6443'}}",
                     "spec.api.port: must be a whole number (found 6443)"),
    "address": Bad("spec: {api: {address: here}}",
                   "spec.api.address: must be an IP address (found here)"),
    "sans": Bad("spec: {api: {sans: a}}", "spec.api.sans: must be a list (found a)"),
    "dashes": Bad("spec: {api: {extraArgs: {--v: 2}}}",
                  "spec.api.extraArgs.--v: must be written without leading dashes: v (found --v)"),
    "storage flag": Bad("spec: {api: {extraArgs: {etcd-servers: a}}}",
                        "spec.api.extraArgs.etcd-servers: is decided by spec.storage; "
                        "leave it out"),
    "network": Bad("spec: {network: {serviceCIDR: 10.96.0.1/12}}",
                   "spec.network.serviceCIDR: must be a network such as 10.96.0.0/12 "
                   "(found 10.96.0.1/12)"),
    "version": Bad("spec: {kubernetes: {version: latest}}",
                   "spec.kubernetes.version: must be a version such as 1.37.2 (found latest)"),
    "version number": Bad("spec: {kubernetes: {version: 1.37}}",
                          "spec.kubernetes.version: must be text (found 1.37)"),
    "no scheme": Bad(KINE % "state.db", "spec.storage.kine.dataSource: must be a URL such as "
                     "sqlite:///var/lib/byre/db/state.db (found ***)"),
    "no scheme, password": Bad(KINE % "'u:secret@h/db'", "spec.storage.kine.dataSource: must be a "
                               "URL such as sqlite:///var/lib/byre/db/state.db (found ***)"),
    "memory": Bad(KINE % "'sqlite://:memory:'", "spec.storage.kine.dataSource: "
                  "sqlite://:memory: names no file, and a cluster in memory is lost at every "
                  "restart; write sqlite:///absolute/path.db"),
    "read only": Bad(KINE % "'sqlite:///a/b?mode=ro'",
                     "spec.storage.kine.dataSource: mode=ro does "
                     "not suit a store; leave it out or use rwc"),
    "root directory": Bad(KINE % "sqlite:///b", "spec.storage.kine.dataSource: sqlite:///b is /b "
                          "in the root directory; write sqlite://b for a file below the data "
                          "directory or sqlite:///absolute/path.db"),
    "not yet": Bad(KINE % "'nats://u:secret@h/d'", "spec.storage.kine.dataSource: nats is not "
                   "supported yet; supported: mariadb, mysql, postgres, postgresql, sqlite, or "
                   "any of kine's with spec.storage.kine.binary (found nats://u:***@h/d)"),
    "near": Bad(KINE % "postgre://h/b", "spec.storage.kine.dataSource: postgre is not supported "
                "yet; supported: mariadb, mysql, postgres, postgresql, sqlite, or any of kine's "
                "with spec.storage.kine.binary (found postgre://h/b); did you mean postgres?"),
    "parameter": Bad(KINE % "'mysql://u:secret@tcp(h)/d?parsTime=true'",
                     "spec.storage.kine.dataSource: mysql://u:***@tcp(h)/d?parsTime=true: unknown "
                     "parameter parsTime; did you mean parseTime?"),
    "percent": Bad(KINE % "'postgres://u:100%secret@h/d'",
                   "spec.storage.kine.dataSource: postgres://u:***@h/d: a percent sign must be "
                   "written as %25"),
    "table prefix": Bad("spec: {storage: {kine: {prefix: A-}}}",
                        "spec.storage.kine.prefix: must be up to 32 small letters, digits and "
                        "underscores, beginning with a letter, such as byre_ (found A-)"),
    "TLS mode": Bad("spec: {storage: {kine: {tlsMode: verify}}}",
                    "spec.storage.kine.tlsMode: must be disable or allow or prefer or require or "
                    "verify-ca or verify-full (found verify); did you mean verify-ca?"),
    "password command": Bad("spec: {storage: {kine: {passwordCommand: secret}}}",
                            "spec.storage.kine.passwordCommand: must be a list (found ***)"),
    "password itself": Bad("spec: {storage: {kine: {password: secret}}}",
                           "spec.storage.kine.password: unknown key (found ***); "
                           "did you mean passwordEnv?"),
    "two passwords": Bad(
        "spec: {storage: {kine: {passwordFile: a, passwordEnv: B}}}",
        "spec.storage.kine: passwordFile and passwordEnv exclude each other"),
    "upstream kine": Bad(
        "spec: {storage: {kine: {binary: kine, passwordFile: a}}}",
        "spec.storage.kine.passwordFile: is for byre's own server; upstream kine takes everything "
        "in dataSource"),
    "k0s only user": Bad("spec: {installConfig: {users: {etcdUser: etcd}}}",
                         "spec.installConfig.users.etcdUser: k0s has this key, byre does not; "
                         "leave it out"),
    "an etcd": Bad(KINE % "'https://h:2379'", "spec.storage.kine.dataSource: is an etcd; use "
                   "spec.storage.type: etcd with etcd.externalCluster.endpoints "
                   "(found https://h:2379)"),
    "two sources": Bad("spec: {storage: {kine: {dataSource: sqlite:///a/b, dataSourceFile: c}}}",
                       "spec.storage.kine: dataSource and dataSourceFile exclude each other"),
    "source is a list": Bad(KINE % "[a]", "spec.storage.kine.dataSource: must be text"),
    "no endpoints": Bad(
        "spec: {storage: {type: etcd, etcd: {externalCluster: {endpoints: []}}}}",
        "spec.storage.etcd.externalCluster.endpoints: must not be empty (found a list)"),
    "endpoints missing": Bad(
        "spec: {storage: {type: etcd, etcd: {externalCluster: {}}}}",
        "spec.storage.etcd.externalCluster.endpoints: is required"),
    "endpoint": Bad(
        "spec: {storage: {type: etcd, etcd: {externalCluster: {endpoints: ['h:2379']}}}}",
        "spec.storage.etcd.externalCluster.endpoints[0]: must be a URL such as "
        "https://10.0.0.5:2379 (found h:2379)"),
    "endpoint with password": Bad(
        "spec: {storage: {type: etcd, etcd: {externalCluster: {endpoints: "
        "['https://u:secret@h:1']}}}}",
        "spec.storage.etcd.externalCluster.endpoints[0]: must not hold credentials; etcd takes "
        "client certificates (found https://u:***@h:1)"),
    "half of the files": Bad(
        "spec: {storage: {type: etcd, etcd: {externalCluster: {endpoints: ['https://h:1'], "
        "caFile: a}}}}",
        "spec.storage.etcd.externalCluster: caFile, clientCertFile, clientKeyFile must be given "
        "together; missing: clientCertFile, clientKeyFile"),
    "prefix": Bad(
        "spec: {storage: {type: etcd, etcd: {externalCluster: {endpoints: ['https://h:1'], "
        "etcdPrefix: r}}}}",
        "spec.storage.etcd.externalCluster.etcdPrefix: must begin with a slash (found r)"),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_configuration_is_told_in_one_line(bad: Bad) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(bad.text, "byre.yaml")
    assert [str(problem) for problem in caught.value.problems] == [bad.problem]
    assert "secret" not in str(caught.value)


def test_every_problem_is_told_in_one_go() -> None:
    text = """
spec:
  api: {port: 0, adress: 1.2.3.4}
  storage: {type: sqlite, kine: {dataSource: x, dataSourceFile: y}}
  network: []
"""
    with pytest.raises(ConfigError) as caught:
        parse(text, "byre.yaml")
    assert [problem.path for problem in caught.value.problems] == [
        "spec.api.port",
        "spec.api.adress",
        "spec.network",
        "spec.storage.type",
        "spec.storage.kine.dataSource",
        "spec.storage.kine",
    ]
    assert str(caught.value).startswith("byre.yaml: 6 problems in the configuration\n  spec.api")


def test_an_error_does_not_carry_the_input_along() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(KINE % "'postgres://u:secret@h/d?x=1'")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_the_example_means_the_defaults() -> None:
    assert parse(example()).spec == Config().spec


def test_every_commented_key_of_the_example_is_known() -> None:
    lines = [line.replace("# ", "", 1) for line in example().splitlines() if "#" in line]
    keys = {line.split(":")[0].strip() for line in lines if ": " in line or line.endswith(":")}
    known = {"dataSource", "dataSourceFile", "binary", "peerAddress", "externalCluster", "sans"}
    assert known <= keys


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(None) == Config()
    assert load(tmp_path / "missing.yaml", optional=True) == Config()


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: no such file or directory"):
        load(tmp_path / "missing.yaml")


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "byre.yaml"
    file.write_bytes(b"spec: \xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text: byte 6"):
        load(file)


@pytest.mark.parametrize("text", ["", "spec:", "spec:\n  storage:\n", "spec: {storage: {kine: }}"])
def test_nothing_below_a_key_means_its_defaults(text: str) -> None:
    assert parse(text).spec == Config().spec


def test_the_heading_of_k0s_is_tolerated() -> None:
    text = "apiVersion: k0s.k0sproject.io/v1beta1\nkind: ClusterConfig\nmetadata: {name: k0s}"
    assert parse(text).spec == Config().spec


def test_values_of_extra_args_become_text() -> None:
    config = parse("spec: {api: {extraArgs: {v: 2, profiling: false, list: [a, b]}}}")
    assert config.spec.api.extra_args == {"v": "2", "profiling": "false", "list": "a,b"}


def test_file_names_are_taken_from_the_configuration_s_directory(tmp_path: Path) -> None:
    file = tmp_path / "byre.yaml"
    file.write_text("spec: {storage: {kine: {dataSourceFile: secret/dsn}}}")
    assert load(file).spec.storage.kine.data_source_file == tmp_path / "secret/dsn"


def test_only_paths_are_explicit_binaries() -> None:
    config = parse("spec: {api: {binary: /x/kube-apiserver}, storage: {kine: {binary: kine}}}")
    assert explicit_binaries(config) == {"kube-apiserver": Path("/x/kube-apiserver")}


@pytest.mark.parametrize(
    "source", ["sqlite:///a/b?_pragma=x&mode=ro", "postgres://h/d?pool_max=3", "nats://h"]
)
def test_upstream_kine_s_parameters_are_its_own_business(source: str) -> None:
    config = parse(f"spec: {{storage: {{kine: {{binary: kine, dataSource: '{source}'}}}}}}")
    assert config.spec.storage.kine.data_source == Dsn(source)


def test_the_configuration_never_shows_a_password() -> None:
    text = "spec: {storage: {kine: {binary: kine, dataSource: 'postgres://u:secret@h/d'}}}"
    config = parse(text)
    assert "secret" not in repr(config)
    assert "secret" not in str(config)


def test_a_readable_file_with_a_password_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "byre.yaml"
    file.write_text(
        "spec: {storage: {kine: {binary: kine, dataSource: 'postgres://u:secret@h/d'}}}"
    )
    file.chmod(0o644)
    load(file)
    assert "every user can read it" in caplog.text
    caplog.clear()
    file.chmod(0o600)
    load(file)
    assert caplog.text == ""
