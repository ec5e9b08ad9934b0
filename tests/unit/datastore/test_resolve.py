from __future__ import annotations

import sys
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from datastore import account, registry, sql
from datastore.config import parse
from datastore.dsn import Dsn
from datastore.endpoint import Endpoint
from datastore.errors import (
    CertificateError,
    ConfigError,
    DatastoreError,
    NotReady,
    UnknownKind,
    UnusableDsn,
    UnusablePath,
    UnusableUser,
)
from datastore.paths import Paths
from datastore.registry import Datastore, Request
from datastore.resolve import resolve

PATHS = Paths(Path("/data"), Path("/run/b"), Path("/cache"), Path("/etc/b.yaml"))
CIPHERS = ",".join(
    f"TLS_ECDHE_{suite}"
    for suite in (
        "ECDSA_WITH_AES_128_GCM_SHA256",
        "RSA_WITH_AES_128_GCM_SHA256",
        "ECDSA_WITH_AES_256_GCM_SHA384",
        "RSA_WITH_AES_256_GCM_SHA384",
        "ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "RSA_WITH_CHACHA20_POLY1305_SHA256",
    )
)
SECRET = "postgres://u:secret@h/d"


def found(text: str, environ: dict[str, str] | None = None, paths: Paths = PATHS) -> Datastore:
    def binary(name: str) -> Path:
        return Path("/bin") / name

    return resolve(parse(text), paths, binary=binary, environ=environ or {})


class TestSqlite:
    def test_it_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sql, "_import_path", dict)
        datastore = found("")
        assert isinstance(datastore, sql.ShimDatastore)
        assert datastore.kind == "sqlite"
        assert datastore.endpoint == Endpoint(("unix:///run/b/datastore/shim.sock",))
        [process] = datastore.processes()
        assert process.argv == (
            sys.executable,
            "-P",
            "-m",
            "datastore",
            "serve",
            "--listen-client-urls=unix:///run/b/datastore/shim.sock",
            "--advertise-client-urls=unix:///run/b/datastore/shim.sock",
            "--listen-metrics-urls=unix:///run/b/datastore/http.sock",
            f"--position-file={datastore.position_file}",
        )
        assert process.environment == {}
        assert process.secrets == {"BYRE_DATASTORE": "sqlite:////data/db/state.db"}

    def test_from_a_checkout_the_child_finds_the_package(self) -> None:
        [process] = found("").processes()
        root = Path(sql.__file__).parents[1]
        assert process.environment == {"PYTHONPATH": str(root)}

    def test_extra_args_follow(self) -> None:
        [process] = found("spec: {storage: {kine: {extraArgs: {log-level: debug}}}}").processes()
        assert process.argv[-1] == "--log-level=debug"

    def test_what_byre_decides_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"kine\.extraArgs\.datastore: is decided by byre"):
            found("spec: {storage: {kine: {extraArgs: {datastore: x}}}}")

    def test_a_file_elsewhere_keeps_its_directory_s_mode(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        paths = Paths(tmp_path / "data", tmp_path / "run", PATHS.cache_dir, PATHS.config_file)
        found(
            f"spec: {{storage: {{kine: {{dataSource: 'sqlite://{tmp_path}/x.db'}}}}}}", paths=paths
        ).prepare()
        assert tmp_path.stat().st_mode & 0o777 == 0o755

    def test_a_directory_in_place_of_the_file_is_told(self, tmp_path: Path) -> None:
        paths = Paths(tmp_path / "data", tmp_path / "run", PATHS.cache_dir, PATHS.config_file)
        (tmp_path / "x").mkdir()
        text = f"spec: {{storage: {{kine: {{dataSource: 'sqlite://{tmp_path}/x'}}}}}}"
        with pytest.raises(UnusablePath, match="it is a directory; name a file"):
            found(text, paths=paths).prepare()

    def test_a_run_directory_that_is_too_long_is_told(self) -> None:
        paths = Paths(PATHS.data_dir, Path("/" + "r" * 100), PATHS.cache_dir, PATHS.config_file)
        with pytest.raises(UnusablePath, match="choose a shorter run directory"):
            found("", paths=paths)


class TestDataSource:
    def test_from_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "dsn"
        file.write_text("sqlite:///a/b.db\n")
        text = f"spec: {{storage: {{kine: {{dataSourceFile: {file}}}}}}}"
        [process] = found(text).processes()
        assert process.secrets["BYRE_DATASTORE"] == "sqlite:////a/b.db"

    @pytest.mark.parametrize("content", ["", "state.db", "u:secret@h/db"])
    def test_a_file_without_a_url_is_told(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "dsn"
        file.write_text(content)
        with pytest.raises(UnusableDsn, match="must hold a URL such as") as caught:
            found(f"spec: {{storage: {{kine: {{dataSourceFile: {file}}}}}}}")
        assert "secret" not in str(caught.value)

    def test_a_missing_file_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(UnusablePath, match="no such file"):
            found(f"spec: {{storage: {{kine: {{dataSourceFile: {tmp_path}/x}}}}}}")

    def test_from_the_environment_unless_configured(self) -> None:
        environ = {"BYRE_DATASTORE": "sqlite:///a/b.db"}
        [process] = found("", environ).processes()
        assert process.secrets["BYRE_DATASTORE"] == "sqlite:////a/b.db"
        text = "spec: {storage: {kine: {dataSource: 'sqlite:///c/d.db'}}}"
        [process] = found(text, environ).processes()
        assert process.secrets["BYRE_DATASTORE"] == "sqlite:////c/d.db"

    def test_an_unknown_scheme_names_the_known_ones(self) -> None:
        with pytest.raises(UnknownKind, match=r"begin with nats://; known: mariadb, mysql, "):
            found("", {"BYRE_DATASTORE": "nats://u:secret@h"})

    def test_an_unusable_one_in_the_environment_is_told(self) -> None:
        with pytest.raises(UnusableDsn, match="unknown parameter sslmod; did you mean sslmode"):
            found("", {"BYRE_DATASTORE": f"{SECRET}?sslmod=x"})


class TestServer:
    def test_everything_reaches_the_server_and_no_secret_its_arguments(self) -> None:
        text = """
spec:
  storage:
    kine:
      dataSource: postgres://u@h/d
      listenDataSource: postgres://u@direct/d
      prefix: a_
      schema: s
      caFile: /t/ca
      clientCertFile: /t/cert
      clientKeyFile: /t/key
      tlsMode: verify-ca
      passwordEnv: PW
"""
        datastore = found(text, {"PW": "secret"})
        assert datastore.kind == "postgresql"
        assert datastore.shared
        [process] = datastore.processes()
        assert {
            "--datastore-prefix=a_",
            "--datastore-schema=s",
            "--datastore-ca-file=/t/ca",
            "--datastore-cert-file=/t/cert",
            "--datastore-key-file=/t/key",
            "--datastore-tls-mode=verify-ca",
            "--datastore-password-env=BYRE_DATASTORE_PASSWORD",
        } < set(process.argv)
        assert process.secrets == {
            "BYRE_DATASTORE": "postgres://u@h/d",
            "BYRE_DATASTORE_LISTEN": "postgres://u@direct/d",
            "BYRE_DATASTORE_PASSWORD": "secret",
        }
        assert "secret" not in f"{datastore!r} {process!r} {process.argv}"

    @pytest.mark.parametrize(
        ("key", "flag"),
        [
            ("passwordFile: /p", "--datastore-password-file=/p"),
            ("passwordCommand: [a, 'b c']", "--datastore-password-command=a 'b c'"),
        ],
    )
    def test_sources_of_passwords(self, key: str, flag: str) -> None:
        text = f"spec: {{storage: {{kine: {{dataSource: 'mysql://u@h/d', {key}}}}}}}"
        [process] = found(text).processes()
        assert flag in process.argv

    def test_each_controller_is_a_member_of_its_own(self) -> None:
        def name(data_dir: str) -> str:
            paths = Paths(Path(data_dir), PATHS.run_dir, PATHS.cache_dir, PATHS.config_file)
            [process] = found("", {"BYRE_DATASTORE": SECRET}, paths).processes()
            [flag] = [one for one in process.argv if one.startswith("--name=")]
            return flag

        assert name("/one") != name("/two")
        assert name("/one") == name("/one")

    def test_a_tcp_listener_is_what_other_members_are_told_of(self) -> None:
        text = (
            "spec: {storage: {kine: {dataSource: 'mysql://h/d', "
            "extraArgs: {listen-client-urls: 'https://10.0.0.1:2379', cert-file: /c}}}}"
        )
        [process] = found(text).processes()
        assert {
            "--listen-client-urls=unix:///run/b/datastore/shim.sock,https://10.0.0.1:2379",
            "--advertise-client-urls=https://10.0.0.1:2379",
            "--cert-file=/c",
        } < set(process.argv)

    def test_what_is_for_servers_is_refused_beside_a_file(self) -> None:
        with pytest.raises(ConfigError, match=r"kine\.schema: is for a database server") as caught:
            found("spec: {storage: {kine: {schema: s, passwordFile: /p}}}")
        assert len(caught.value.problems) == 2

    def test_contradictions_between_the_data_source_and_the_keys_are_told(self) -> None:
        text = f"spec: {{storage: {{kine: {{dataSource: '{SECRET}', passwordEnv: PW}}}}}}"
        with pytest.raises(UnusableDsn, match=r"the password is given twice"):
            found(text)

    @pytest.mark.parametrize(
        ("keys", "told"),
        [
            ("passwordFile: /nowhere", r"/nowhere: no such file"),
            ("passwordEnv: NOWHERE", r"the environment variable NOWHERE is not set"),
            ("caFile: /nowhere", r"cannot use /nowhere: no such file"),
        ],
    )
    def test_what_is_missing_is_told_before_the_start(
        self, keys: str, told: str, tmp_path: Path
    ) -> None:
        paths = Paths(tmp_path / "data", tmp_path / "run", PATHS.cache_dir, PATHS.config_file)
        text = f"spec: {{storage: {{kine: {{dataSource: 'mysql://h/d', {keys}}}}}}}"
        with pytest.raises(DatastoreError, match=told):
            found(text, paths=paths).prepare()

    def test_an_unprotected_connection_is_warned_about(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        paths = Paths(tmp_path / "data", tmp_path / "run", PATHS.cache_dir, PATHS.config_file)
        found("spec: {storage: {kine: {dataSource: 'mysql://h/d'}}}", paths=paths).prepare()
        assert "nothing proves that h:3306 is the database" in caplog.text
        assert "spec.storage.kine.caFile" in caplog.text

    def test_a_user_that_does_not_exist_is_told(self) -> None:
        text = "spec: {installConfig: {users: {kineUser: nobody-at-all}}}"
        config = parse(text)
        with pytest.raises(UnusableUser, match=r"useradd --system .* nobody-at-all"):
            account.find_account(config.spec.install_config.users.kine_user or "")


class TestKine:
    TEXT = f"spec: {{storage: {{kine: {{binary: kine, dataSource: '{SECRET}'}}}}}}"

    def test_the_data_source_is_in_no_argv_and_no_repr(self) -> None:
        datastore = found(self.TEXT)
        [process] = datastore.processes()
        assert process.argv == (
            "/bin/kine",
            "--listen-address=unix:///run/b/datastore/kine.sock",
            "--metrics-bind-address=0",
            "--compact-interval=0",
        )
        assert process.secrets == {"KINE_ENDPOINT": SECRET}
        assert "secret" not in f"{datastore!r} {process!r} {datastore.endpoint!r}"

    async def test_its_error_shows_no_password(self) -> None:
        with pytest.raises(NotReady, match=r"u:\*\*\*@h/d does not answer") as caught:
            await found(self.TEXT).check()
        assert "secret" not in str(caught.value)

    def test_sqlite_in_any_form_becomes_kine_s(self) -> None:
        for form in ("sqlite+pysqlite:////a/b.db", "sqlite:///a/b.db"):
            text = f"spec: {{storage: {{kine: {{binary: kine, dataSource: '{form}'}}}}}}"
            [process] = found(text).processes()
            assert process.secrets["KINE_ENDPOINT"].startswith(
                "sqlite:///a/b.db?_journal_mode=WAL"
            )

    def test_parameters_of_the_user_replace_kine_s(self) -> None:
        text = "spec: {storage: {kine: {binary: kine, dataSource: 'sqlite:///a/b.db?_sync=2'}}}"
        [process] = found(text).processes()
        assert process.secrets["KINE_ENDPOINT"] == "sqlite:///a/b.db?_sync=2"

    def test_it_is_told_of_tls_files_and_shares_what_is_no_file(self) -> None:
        keys = "caFile: /ca, clientCertFile: /cert, clientKeyFile: /key"
        text = f"spec: {{storage: {{kine: {{binary: kine, dataSource: '{SECRET}', {keys}}}}}}}"
        datastore = found(text)
        [process] = datastore.processes()
        assert {"--ca-file=/ca", "--cert-file=/cert", "--key-file=/key"} < set(process.argv)
        assert datastore.shared
        assert not found("spec: {storage: {kine: {binary: kine}}}").shared

    def test_it_does_not_share_the_shim_s_file(self) -> None:
        [process] = found("spec: {storage: {kine: {binary: kine}}}").processes()
        assert "/data/db/kine.db?" in process.secrets["KINE_ENDPOINT"]

    def test_extra_args_replace_defaults(self) -> None:
        text = "spec: {storage: {kine: {binary: kine, extraArgs: {compact-interval: 5m}}}}"
        [process] = found(text).processes()
        assert [arg for arg in process.argv if "compact" in arg] == ["--compact-interval=5m"]


class TestManagedEtcd:
    def test_its_command_line(self) -> None:
        datastore = found("spec: {storage: {type: etcd}}")
        [process] = datastore.processes()
        assert process.argv == (
            "/bin/etcd",
            "--name=default",
            "--data-dir=/data/etcd",
            "--listen-client-urls=https://127.0.0.1:2379",
            "--advertise-client-urls=https://127.0.0.1:2379",
            "--listen-peer-urls=https://127.0.0.1:2380",
            "--initial-advertise-peer-urls=https://127.0.0.1:2380",
            "--initial-cluster=default=https://127.0.0.1:2380",
            "--initial-cluster-state=new",
            "--client-cert-auth=true",
            "--trusted-ca-file=/data/pki/datastore/ca.crt",
            "--cert-file=/data/pki/datastore/server.crt",
            "--key-file=/data/pki/datastore/server.key",
            "--peer-client-cert-auth=true",
            "--peer-trusted-ca-file=/data/pki/datastore/ca.crt",
            "--peer-cert-file=/data/pki/datastore/peer.crt",
            "--peer-key-file=/data/pki/datastore/peer.key",
            "--tls-min-version=TLS1.2",
            f"--cipher-suites={CIPHERS}",
            "--quota-backend-bytes=8589934592",
            "--watch-progress-notify-interval=5s",
            "--feature-gates=InitialCorruptCheck=true",
            "--log-level=info",
        )

    def test_kube_apiserver_gets_its_own_certificate(self) -> None:
        assert found("spec: {storage: {type: etcd}}").endpoint.apiserver_flags() == [
            "--etcd-servers=https://127.0.0.1:2379",
            "--etcd-prefix=/registry",
            "--etcd-cafile=/data/pki/datastore/ca.crt",
            "--etcd-certfile=/data/pki/datastore/apiserver-etcd-client.crt",
            "--etcd-keyfile=/data/pki/datastore/apiserver-etcd-client.key",
        ]

    def test_extra_args_replace_and_the_cluster_follows(self) -> None:
        text = (
            "spec: {storage: {type: etcd, etcd: {peerAddress: '::1', extraArgs: "
            "{name: a, quota-backend-bytes: 1, listen-client-urls: 'https://127.0.0.1:1'}}}}"
        )
        datastore = found(text)
        [process] = datastore.processes()
        assert datastore.endpoint.urls == ("https://127.0.0.1:1",)
        assert {
            "--initial-cluster=a=https://[::1]:2380",
            "--quota-backend-bytes=1",
            "--advertise-client-urls=https://127.0.0.1:1",
        } <= set(process.argv)
        assert len({arg.partition("=")[0] for arg in process.argv}) == len(process.argv)

    def test_what_byre_decides_is_refused(self) -> None:
        text = (
            "spec: {storage: {type: etcd, etcd: {extraArgs: "
            "{data-dir: /x, cert-file: y, listen-client-urls: 'http://h:1'}}}}"
        )
        with pytest.raises(ConfigError) as caught:
            found(text)
        assert [problem.path.rpartition(".")[2] for problem in caught.value.problems] == [
            "data-dir",
            "cert-file",
            "listen-client-urls",
        ]


class TestExternalEtcd:
    TEXT = (
        "spec: {storage: {type: etcd, etcd: {externalCluster: {endpoints: "
        "['https://h:1', 'https://i:1'], etcdPrefix: /x, caFile: /t/ca.crt, "
        "clientCertFile: /t/c.crt, clientKeyFile: /t/c.key}}}}"
    )

    def test_it_runs_nothing_and_passes_everything_on(self) -> None:
        datastore = found(self.TEXT)
        assert datastore.processes() == ()
        assert datastore.binaries == ()
        assert datastore.endpoint.apiserver_flags() == [
            "--etcd-servers=https://h:1,https://i:1",
            "--etcd-prefix=/x",
            "--etcd-cafile=/t/ca.crt",
            "--etcd-certfile=/t/c.crt",
            "--etcd-keyfile=/t/c.key",
        ]

    async def test_missing_files_are_told(self) -> None:
        datastore = found(self.TEXT)
        with pytest.raises(CertificateError, match=r"/t/ca\.crt: cannot be read: no such file"):
            datastore.prepare()
        with pytest.raises(NotReady, match=r"/t/ca\.crt: cannot be read.*; give the files"):
            await datastore.check()


class TestRegistry:
    def test_a_kind_of_somebody_else_registers_by_scheme(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = EntryPoint("other", f"{__name__}:other_kind", registry.ENTRY_POINTS)

        def entry_points(**asked: Any) -> EntryPoints:
            return EntryPoints([here]).select(**asked)

        monkeypatch.setattr(metadata, "entry_points", entry_points)
        monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
        assert {"other", "sqlite"} < set(registry.schemes())
        datastore = found("spec: {storage: {kine: {dataSource: 'other://x'}}}")
        assert datastore.kind == "other x"


def _this_module() -> Any:
    class Module:
        other_kind = staticmethod(globals()["other_kind"])

    return Module


def other_kind(request: Request) -> Datastore:
    class Other:
        shared = False
        place = "x"
        kind = f"other {Dsn(request.dsn.text).text.partition('://')[2]}"
        endpoint = Endpoint(("http://h:1",))
        binaries = ()

        def processes(self) -> tuple[()]:
            return ()

        def prepare(self) -> None:
            """Need nothing."""

        async def check(self) -> None:
            """Be ready."""

    return Other()
