from __future__ import annotations

import sys
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from datastore import registry, sql
from datastore.config import parse
from datastore.dsn import Dsn
from datastore.endpoint import Endpoint
from datastore.errors import (
    CertificateError,
    ConfigError,
    NotReady,
    UnknownKind,
    UnusableDsn,
    UnusablePath,
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
        with pytest.raises(UnknownKind, match=r"begin with postgres://; known: sqlite"):
            found("", {"BYRE_DATASTORE": SECRET})


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
        assert registry.schemes() == ["other", "sqlite"]
        datastore = found("spec: {storage: {kine: {dataSource: 'other://x'}}}")
        assert datastore.kind == "other x"


def _this_module() -> Any:
    class Module:
        other_kind = staticmethod(globals()["other_kind"])

    return Module


def other_kind(request: Request) -> Datastore:
    class Other:
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
