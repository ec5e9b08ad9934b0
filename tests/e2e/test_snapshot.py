"""From byre to etcd and on: what etcdutl restores is the same store, history included."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from google.protobuf.message import Message

from datastore.etcdpb import auth_pb2
from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.snapshot.pages import PAGE_BYTES
from tests.support.bolt import Database
from tests.support.client import (
    COMPACTED,
    Client,
    Code,
    Refusal,
    delete_op,
    put_op,
    refused,
)
from tests.support.etcd import etcd
from tests.support.running import Server
from tests.support.servers import Binaries
from tests.support.shim import shim_on

pytestmark = pytest.mark.servers

EVERYTHING = (b"\0", b"\0")
KEYS = 4000
PASSWORDS = {"root": "a secret", "ann": "another"}
DENIED = Refusal(Code.PERMISSION_DENIED, "etcdserver: permission denied")
LARGE = (5_000, 100_000, 1_400_000)


class Auth(NamedTuple):
    """Users and roles."""

    enabled: bool
    revision: int
    users: Mapping[str, Sequence[str]]
    """The roles of each."""
    roles: Mapping[str, Sequence[bytes]]
    """What each permits, encoded."""


@dataclass
class Contents:
    """All that a client can learn of a store."""

    revision: int
    compacted: int
    now: Sequence[bytes]
    """Every key as it is, encoded."""
    then: Mapping[int, Sequence[bytes]]
    """The same at some revisions."""
    history: Sequence[bytes]
    """Every event since the compaction."""
    leases: Mapping[int, tuple[int, Sequence[bytes]]]
    """TTL and keys of each lease."""
    auth: Auth

    @classmethod
    async def read(cls, client: Client, compacted: int) -> Contents:
        """Read them, and find the compacted revision where it must be."""
        now = await client.get(*EVERYTHING)
        revision = now.header.revision
        marks = sorted({compacted, compacted + 1, (compacted + revision) // 2, revision - 1})
        then = {at: _kvs(await client.get(*EVERYTHING, revision=at)) for at in marks}
        with refused(COMPACTED):
            await client.get(b"k", revision=compacted - 1)
        leases = {}
        for lease in await client.leases():
            found = await client.time_to_live(lease, keys=True)
            leases[lease] = (found.grantedTTL, sorted(found.keys))
        history = await _history(client, compacted, revision)
        auth = await _auth(client)
        return cls(revision, compacted, _kvs(now), then, history, leases, auth)


def _kvs(answer: pb.RangeResponse) -> Sequence[bytes]:
    assert answer.count == len(answer.kvs)
    return [kv.SerializeToString(deterministic=True) for kv in answer.kvs]


async def _auth(client: Client) -> Auth:
    status = await client.call("Auth/AuthStatus", b"", pb.AuthStatusResponse)
    users, roles = {}, {}
    for name in (await client.call("Auth/UserList", b"", pb.AuthUserListResponse)).users:
        asked = pb.AuthUserGetRequest(name=name)
        users[name] = list(
            (await client.call("Auth/UserGet", asked, pb.AuthUserGetResponse)).roles
        )
    for name in (await client.call("Auth/RoleList", b"", pb.AuthRoleListResponse)).roles:
        wanted = pb.AuthRoleGetRequest(role=name)
        role = await client.call("Auth/RoleGet", wanted, pb.AuthRoleGetResponse)
        roles[name] = [permission.SerializeToString() for permission in role.perm]
    return Auth(status.enabled, status.authRevision, users, roles)


async def _history(client: Client, first: int, last: int) -> Sequence[bytes]:
    events = []
    async with client.watch() as stream:
        await stream.create(*EVERYTHING, start_revision=first)
        reached = 0
        while reached < last:
            answer = await stream.next()
            events += [event.SerializeToString(deterministic=True) for event in answer.events]
            reached = max(reached, *(event.kv.mod_revision for event in answer.events))
    return events


async def fill(client: Client) -> int:
    """Write a store of several levels of pages, and return the compacted revision."""
    chance = random.Random(5)
    short, long = [(await client.grant(ttl)).ID for ttl in (600, 90_000)]
    await client.grant(1234, -7)
    for start in range(0, KEYS, 100):
        ops = [
            put_op(b"k%05d" % number, chance.randbytes(chance.choice((0, 20, 200, 900))))
            for number in range(start, start + 100)
        ]
        await client.txn(success=ops)
    for number in range(300):
        lease = chance.choice((0, 0, short, long))
        await client.put(b"k%05d" % chance.randrange(KEYS), b"again %d" % number, lease=lease)
    await client.delete(b"k00100", b"k00200")
    await client.put(b"gone before")
    await client.delete(b"gone before")
    await client.txn(success=[delete_op(b"k00300"), put_op(b"\xff\0binary", b"\0\xff")])
    compacted = await client.revision()
    for size in LARGE:
        await client.put(b"large %d" % size, chance.randbytes(size))
    await client.compact(compacted)
    for number in range(0, KEYS, 7):
        await client.put(b"k%05d" % number, b"later")
    await client.delete(b"k01000", b"k01300")
    await client.txn(success=[put_op(b"k01000", b"reborn"), delete_op(b"k02000", b"k02010")])
    return compacted


async def admit(client: Client) -> None:
    """Make users and roles, and ask for them from now on."""
    reader = auth_pb2.Permission(key=b"k", range_end=b"l")
    writer = auth_pb2.Permission(permType=auth_pb2.Permission.WRITE, key=b"k00001")
    calls: Sequence[tuple[str, Message]] = (
        ("UserAdd", pb.AuthUserAddRequest(name="root", password=PASSWORDS["root"])),
        ("UserAdd", pb.AuthUserAddRequest(name="ann", password=PASSWORDS["ann"])),
        ("RoleAdd", pb.AuthRoleAddRequest(name="reader")),
        ("RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="reader", perm=reader)),
        ("RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name="reader", perm=writer)),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="ann", role="reader")),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
        ("AuthEnable", pb.AuthEnableRequest()),
    )
    for name, request in calls:
        await client.call(f"Auth/{name}", request, pb.AuthEnableResponse)
    await log_in(client, "root")


async def log_in(client: Client, name: str) -> None:
    """Be this user from now on."""
    request = pb.AuthenticateRequest(name=name, password=PASSWORDS[name])
    answer = await client.call("Auth/Authenticate", request, pb.AuthenticateResponse)
    client.metadata = [("token", answer.token)]


def etcdutl(binaries: Binaries, *arguments: str) -> str:
    return _run([str(binaries.etcdutl), *arguments])


def save(binaries: Binaries, server: Server, file: Path, *flags: str) -> None:
    """Take a snapshot as an administrator does."""
    command = [str(binaries.etcdctl), f"--endpoints={server.target}", *flags]
    _run([*command, "snapshot", "save", str(file)])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb"])
def source(
    request: pytest.FixtureRequest, stores: Callable[[str, Path], str], tmp_path: Path
) -> Iterator[Server]:
    """Run byre on an empty store."""
    server = shim_on(stores(request.param, tmp_path), tmp_path, request.param)
    server.start()
    yield server
    server.close()


@pytest.fixture
def restore(binaries: Binaries, tmp_path: Path) -> Iterator[Callable[[Path], Server]]:
    """Give a function that starts an etcd on what it has restored from a snapshot."""
    target = etcd(binaries.etcd, tmp_path)

    def run(file: Path) -> Server:
        etcdutl(
            binaries,
            "snapshot",
            "restore",
            str(file),
            f"--data-dir={tmp_path / 'etcd'}",
            "--name=default",
            "--initial-cluster=default=http://127.0.0.1:1",
            "--initial-advertise-peer-urls=http://127.0.0.1:1",
        )
        target.start()
        return target

    yield run
    target.close()


async def test_a_store_goes_to_etcd_as_it_is(source, restore, binaries, tmp_path):
    file = tmp_path / "snapshot.db"
    async with Client(source.target) as client:
        compacted = await fill(client)
        await admit(client)
        save(binaries, source, file, "--user=root", f"--password={PASSWORDS['root']}")
        expected = await Contents.read(client, compacted)
    _check_file(binaries, file, expected)
    async with Client(restore(file).target) as client:
        await log_in(client, "root")
        assert await Contents.read(client, compacted) == expected
        await _live_on(client, expected)
        await log_in(client, "ann")
        await client.put(b"k00001", b"by ann")
        with refused(DENIED):
            await client.put(b"k00002", b"by ann")


def _check_file(binaries: Binaries, file: Path, expected: Contents) -> None:
    status = json.loads(etcdutl(binaries, "snapshot", "status", str(file), "--write-out=json"))
    assert status["revision"] == expected.revision
    assert status["totalKey"] == len(expected.now)
    assert status["version"] == "3.7.0"
    assert status["totalSize"] == file.stat().st_size - 32
    database = Database(file.read_bytes()[:-32])
    for name in database.roots:
        database.bucket(name)
    stats = database.stats[b"key"]
    assert stats.depth == 3
    assert stats.overflow == sum(size // PAGE_BYTES for size in LARGE)
    assert database.seen == set(range(database.meta.pages))


async def _live_on(client: Client, expected: Contents) -> None:
    """Change everything in a restored etcd, so that it has to rearrange each page of the file."""
    put = await client.put(b"k00001", b"new", prev_kv=True)
    assert put.header.revision == expected.revision + 1
    deleted = 0
    for start in range(0, KEYS, 500):
        answer = await client.delete(b"k%05d" % start, b"k%05d" % (start + 400))
        deleted += answer.deleted
    assert deleted > KEYS // 2
    await client.compact(await client.revision(), physical=True)
    await client.call(
        "Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse, timeout=60
    )
    assert await client.count(*EVERYTHING) == len(expected.now) - deleted


async def test_an_empty_store_goes_to_etcd_too(restore, binaries, tmp_path, stores):
    file = tmp_path / "snapshot.db"
    server = shim_on(stores("memory", tmp_path), tmp_path, "memory")
    server.start()
    try:
        save(binaries, server, file)
    finally:
        server.close()
    async with Client(restore(file).target) as client:
        assert await client.revision() == 1
        assert (await client.put(b"a")).header.revision == 2
