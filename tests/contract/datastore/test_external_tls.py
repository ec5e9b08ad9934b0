"""An etcd with TLS that someone else runs: what fits, and every way not to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from datastore.config import parse
from datastore.errors import NotReady
from datastore.paths import Paths
from datastore.pki import Authority, KeyPair, Leaf
from datastore.registry import Datastore
from datastore.resolve import resolve
from tests.support.running import Server, free_port
from tests.support.servers import Binaries

pytestmark = [pytest.mark.servers]

LEAF = Leaf("server", "etcd", addresses=("127.0.0.1",), server=True, client=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.ensure(tmp_path / "pki", common_name="their-ca")


@pytest.fixture
def server(authority: Authority, binaries: Binaries, tmp_path: Path) -> Iterator[Server]:
    pair = authority.issue(LEAF)
    place, peer = f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    argv = [
        str(binaries.etcd),
        f"--data-dir={tmp_path / 'etcd'}",
        f"--listen-client-urls=https://{place}",
        f"--advertise-client-urls=https://{place}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--client-cert-auth=true",
        f"--trusted-ca-file={authority.cert}",
        f"--cert-file={pair.cert}",
        f"--key-file={pair.key}",
        "--unsafe-no-fsync",
    ]
    credentials = grpc.ssl_channel_credentials(
        authority.cert.read_bytes(), pair.key.read_bytes(), pair.cert.read_bytes()
    )
    one = Server("etcd", argv, place, f"https://{place}", tmp_path, credentials)
    one.start()
    yield one
    one.close()


def external(server: Server, paths: Paths, ca: Path, pair: KeyPair) -> Datastore:
    return resolve(
        parse(
            "spec: {storage: {type: etcd, etcd: {externalCluster: "
            f"{{endpoints: ['{server.http}'], caFile: {ca}, "
            f"clientCertFile: {pair.cert}, clientKeyFile: {pair.key}}}}}}}}}"
        ),
        paths,
    )


async def test_files_that_fit(server: Server, authority: Authority, paths: Paths) -> None:
    datastore = external(server, paths, authority.cert, authority.issue(LEAF))
    datastore.prepare()
    await datastore.check()


async def test_a_client_of_an_authority_that_etcd_does_not_trust(
    server: Server, authority: Authority, paths: Paths, tmp_path: Path
) -> None:
    stranger = Authority.ensure(tmp_path / "other", common_name="other-ca").issue(LEAF)
    with pytest.raises(NotReady, match="does not accept this client's certificate"):
        await external(server, paths, authority.cert, stranger).check()


async def test_an_authority_that_did_not_issue_etcd_s_certificate(
    server: Server, authority: Authority, paths: Paths, tmp_path: Path
) -> None:
    other = Authority.ensure(tmp_path / "other", common_name="other-ca")
    with pytest.raises(NotReady, match=r"its certificate is refused.*other/ca\.crt the authority"):
        await external(server, paths, other.cert, authority.issue(LEAF)).check()


async def test_plain_http_to_an_etcd_with_tls(server: Server, paths: Paths) -> None:
    plain = server.http.replace("https", "http")
    text = (
        f"spec: {{storage: {{type: etcd, etcd: {{externalCluster: {{endpoints: ['{plain}']}}}}}}}}"
    )
    with pytest.raises(NotReady, match="closes the connection; does it want TLS"):
        await resolve(parse(text), paths).check()
