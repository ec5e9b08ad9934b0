"""`byre kine` where a script starts kine: the same command lines, started with either program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from datastore.kinecli.flags import FLAGS
from tests.support.certificates import Authority
from tests.support.client import Client, get_op, put_op, until_none, when
from tests.support.databases import DatabaseServer, PostgresqlServer, database_on
from tests.support.etcdctl import Shell
from tests.support.running import Listen, Server, eventually, free_port
from tests.support.servers import Binaries

pytestmark = [pytest.mark.servers]

ROOT = Path(__file__).parents[2]
BYRE = (sys.executable, "-m", "supervisor.cli", "kine")
PROGRAMS = ("kine", "byre")
PODS = b"/registry/pods/"
Launch = Callable[..., Server]


@pytest.fixture
def describe(binaries: Binaries, tmp_path: Path) -> Iterator[Launch]:
    """Describe a program in a directory of its own, where its addresses are none of kine's."""
    stack = ExitStack()

    def describe(program: str, *flags: str, listen: Listen | None = None, **more: str) -> Server:
        listen = listen or Listen.tcp()
        http = f"127.0.0.1:{free_port()}"
        directory = tmp_path / program
        directory.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "KINE_LISTEN_ADDRESS": re.sub("^https?://", "", listen.url),
            "KINE_METRICS_BIND_ADDRESS": http,
            **more,
        }
        command = BYRE if program == "byre" else (str(binaries.kine),)
        server = Server(
            program, [*command, *flags], listen.target, f"http://{http}", directory,
            listen.credentials, cwd=directory, environment=environment,
        )  # fmt: skip
        stack.enter_context(closing(server))
        return server

    yield describe
    stack.close()


async def create(client: Client, key: bytes, value: bytes) -> pb.TxnResponse:
    """Create as kube-apiserver does: kine takes little else."""
    return await client.txn([when(key, mod_revision=0)], [put_op(key, value)], [get_op(key)])


async def update(client: Client, key: bytes, value: bytes, revision: int) -> pb.TxnResponse:
    compare = [when(key, mod_revision=revision)]
    return await client.txn(compare, [put_op(key, value)], [get_op(key)])


async def live(client: Client) -> list[Any]:
    """Write, read, list and watch; return what a client sees, revisions counted from the first."""
    key = PODS + b"a"
    first = await create(client, key, b"1")
    start = first.header.revision
    again = await create(client, key, b"2")
    second = await update(client, key, b"2", start)
    stale = await update(client, key, b"3", start)
    await create(client, PODS + b"b", b"9")
    listed = await client.list(PODS)
    async with client.watch() as stream:
        created = await stream.create(PODS, b"/registry/pods0", start_revision=start)
        events = await stream.events(3)
    old = await client.get(key, revision=start)
    return [
        [answer.succeeded for answer in (first, again, second, stale)],
        again.responses[0].response_range.kvs[0].value,
        [(kv.key, kv.value, kv.mod_revision - start) for kv in listed.kvs],
        (listed.count, listed.more, created.created),
        [(event.type, event.kv.key, event.kv.value) for event in events],
        [event.kv.mod_revision - start for event in events],
        [kv.value for kv in old.kvs],
    ]


async def seen(server: Server) -> list[Any]:
    server.start()
    async with Client(server.target, credentials=server.credentials) as client:
        return await live(client)


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        ((), {}),
        (("--endpoint=sqlite://state.db?_journal=WAL&cache=shared",), {}),
        (
            ("-debug", "--log-format", "json", "--watch-progress-notify-interval=1s"),
            {"KINE_COMPACT_MIN_RETAIN": "10", "KINE_DATASTORE_MAX_OPEN_CONNECTIONS": "5"},
        ),
    ],
    ids=["defaults", "file", "more"],
)
async def test_a_client_sees_the_same(
    describe: Launch, flags: tuple[str, ...], variables: dict[str, str]
) -> None:
    kine, byre = (describe(program, *flags, **variables) for program in PROGRAMS)
    assert await seen(byre) == await seen(kine)
    for server in (byre, kine):
        async with httpx.AsyncClient(trust_env=False) as browser:
            assert (await browser.get(f"{server.http}/metrics")).status_code == 200
    assert byre.stop() == 0
    if variables:
        assert "--datastore-max-open-connections" in byre.log.read_text()


async def test_without_an_endpoint_both_make_the_same_file(describe: Launch) -> None:
    for program in PROGRAMS:
        server = describe(program)
        server.start()
        (file,) = (server.directory / "db").glob("state.db")
        assert file.parent.stat().st_mode & 0o777 == 0o700


async def test_the_command_line_of_k0s(describe: Launch, tmp_path: Path) -> None:
    for program in PROGRAMS:
        database = tmp_path / f"{program}.db"
        socket = tmp_path / f"{program}.sock:2379"
        server = describe(
            program,
            f"--endpoint=sqlite://file:{database}?mode=rwc&_journal=WAL",
            f"--listen-address=unix://{socket}",
        )
        server.target = f"unix:{socket}"
        assert await seen(server)
        assert socket.stat().st_mode & 0o777 == 0o600
        assert database.exists()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
async def test_database_servers(
    describe: Launch, servers: Callable[[str], DatabaseServer], kind: str
) -> None:
    answers = []
    for program in PROGRAMS:
        server = servers(kind)
        with database_on(server) as name:
            url = server.url(name)
            if kind == "mariadb":  # in the form of kine's driver
                url = re.sub(r"^\w+://(.*)@([^/]+)/", r"mysql://\1@tcp(\2)/", url)
            running = describe(program, KINE_ENDPOINT=url)
            answers.append(await seen(running))
            running.stop()
    assert answers[0] == answers[1]


async def test_tls_and_certificates_of_clients(describe: Launch, tmp_path: Path) -> None:
    authority = Authority("kine")
    cert, key = authority.issue(tmp_path, "server")
    flags = (
        f"--server-cert-file={cert}",
        f"--server-key-file={key}",
        f"--trusted-ca-file={authority.write(tmp_path)}",
    )
    known = grpc.ssl_channel_credentials(authority.pem, key.read_bytes(), cert.read_bytes())
    for program in PROGRAMS:
        server = describe(program, *flags, listen=Listen.tcp(known))
        assert await seen(server)
        async with Client(
            server.target, credentials=grpc.ssl_channel_credentials(authority.pem)
        ) as stranger:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stranger.get(PODS)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_compacting_by_itself(describe: Launch) -> None:
    for program in PROGRAMS:
        server = describe(
            program, "--compact-interval=1s", "--compact-min-retain=2", "--compact-batch-size=100"
        )
        server.start()
        async with Client(server.target) as client:
            revision = first = (await create(client, PODS, b"0")).header.revision
            for number in range(5):
                answer = await update(client, PODS, b"%d" % number, revision)
                revision = answer.header.revision

            async def readable(client: Client = client, revision: int = first) -> bool:
                try:
                    return bool((await client.get(PODS, revision=revision)).kvs)
                except grpc.aio.AioRpcError as error:
                    return "has been compacted" not in str(error.details())

            await until_none(readable)
            assert (await client.get(PODS, revision=revision - 2)).kvs


async def test_the_version_that_is_claimed(describe: Launch) -> None:
    for program in PROGRAMS:
        server = describe(program, "--emulated-etcd-version=3.5.13")
        server.start()
        async with Client(server.target) as client:
            status = await client.call("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
        assert status.version == "3.5.13"


async def test_what_kine_has_stored_is_refused(describe: Launch) -> None:
    kine = describe("kine", "--endpoint=sqlite://state.db")
    await seen(kine)
    kine.stop()
    byre = describe("byre", f"--endpoint=sqlite://{kine.directory}/state.db")
    assert byre.spawn().wait(60) == 3
    assert "holds kine's data" in byre.log.read_text()


async def test_the_way_out_that_the_readme_names(describe: Launch, binaries: Binaries) -> None:
    kine, byre = (describe(program) for program in PROGRAMS)
    await seen(kine)
    byre.start()
    source, target = Shell(binaries.etcdctl, kine), Shell(binaries.etcdctl, byre)
    everything = "get /registry/ --prefix"
    wanted = source.raw(everything).output
    assert "/registry/pods/a" in wanted
    with source.started(f"make-mirror --prefix=/registry/ {byre.target}"):
        eventually(lambda: target.raw(everything).output == wanted, "all is there")


async def test_it_waits_for_a_database_server_as_kine_does(describe: Launch) -> None:
    with closing(PostgresqlServer()) as database:
        byre = describe("byre", f"--endpoint={database.url('kine')}")
        process = byre.spawn()
        eventually(
            lambda: "waiting for the database" in byre.log.read_text(), "it finds no database"
        )
        assert process.poll() is None
        database.start()
        eventually(lambda: " serving " in byre.log.read_text(), "it finds the database")
        byre.stop()


def test_every_flag_variable_and_default_of_kine_is_known(binaries: Binaries) -> None:
    printed = subprocess.run(
        [binaries.kine, "--help"], capture_output=True, text=True, check=True
    ).stdout
    options = re.findall(r"(?m)^   --([a-z0-9-]+)(.*)$", printed)
    known = {flag.name: flag for flag in FLAGS}
    names = {name for name, _ in options} - {"help", "version"}
    assert names == set(known)
    for name, rest in options:
        variables = set(re.findall(r"\$(KINE_\w+)", rest))
        if variables:
            assert variables == {known[name].variable}
        default = re.search(r"\(default: (.*?)\)", rest)
        if default and known[name].default and name != "emulated-etcd-version":
            assert default[1].strip('"') == known[name].default, name
