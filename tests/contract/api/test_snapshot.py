"""Maintenance/Snapshot: the stream, and what is in the file (contract 2.9)."""

from __future__ import annotations

import asyncio
import hashlib
import struct

from datastore.etcdpb import auth_pb2, kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.bolt import Database
from tests.support.client import SECONDS, Client, Code, Refusal, delete_op, path, put_op, refused

BUCKETS = [
    b"alarm",
    b"auth",
    b"authRoles",
    b"authUsers",
    b"cluster",
    b"key",
    b"lease",
    b"members",
    b"members_removed",
    b"meta",
]
CHUNK = 32 << 10
USER_EMPTY = Refusal(Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
AUTH_CALLS = (
    ("UserAdd", pb.AuthUserAddRequest(name="root", password="secret")),
    (
        "UserAdd",
        pb.AuthUserAddRequest(name="cn", options=auth_pb2.UserAddOptions(no_password=True)),
    ),
    ("RoleAdd", pb.AuthRoleAddRequest(name="reader")),
    (
        "RoleGrantPermission",
        pb.AuthRoleGrantPermissionRequest(
            name="reader", perm=auth_pb2.Permission(key=b"a", range_end=b"b")
        ),
    ),
    (
        "RoleGrantPermission",
        pb.AuthRoleGrantPermissionRequest(
            name="reader",
            perm=auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"k"),
        ),
    ),
    ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="cn", role="reader")),
    ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
    ("AuthEnable", pb.AuthEnableRequest()),
)


async def take(client: Client) -> list[pb.SnapshotResponse]:
    raw = client.channel.unary_stream(
        path("Maintenance/Snapshot"), response_deserializer=pb.SnapshotResponse.FromString
    )
    call = raw(b"", timeout=3 * SECONDS, metadata=tuple(client.metadata))
    return [message async for message in call]


async def database(client: Client) -> Database:
    """Take a snapshot and read it, every page."""
    return Database(b"".join(message.blob for message in (await take(client))[:-1]))


def changes(found: Database) -> dict[tuple[int, int, bool], kv_pb2.KeyValue]:
    """Return the changes by revision, number in it, and whether it is a tombstone."""
    rows = {}
    for key, value in found.bucket(b"key"):
        main, mark, sub = struct.unpack_from(">QcQ", key)
        assert mark == b"_"
        assert key[17:] in {b"", b"t"}
        rows[main, sub, key[17:] == b"t"] = kv_pb2.KeyValue.FromString(value)
    return rows


async def test_the_stream_is_chunks_of_one_file_and_its_hash(client, prefix):
    await client.put(prefix, bytes(500_000))
    messages = await take(client)
    *chunks, last = messages
    blob = b"".join(chunk.blob for chunk in chunks)
    assert last.blob == hashlib.sha256(blob).digest()
    assert last.remaining_bytes == 0
    assert len(blob) % 512 == 0
    assert [len(chunk.blob) for chunk in chunks[:-1]] == [CHUNK] * (len(chunks) - 1)
    left = len(blob)
    for chunk in chunks:
        left -= len(chunk.blob)
        assert chunk.remaining_bytes == left
    assert {message.version for message in messages} == {"3.7.0"}
    assert not any(message.HasField("header") for message in messages)


async def test_the_file_has_the_buckets_of_etcd(fresh):
    async with Client(fresh.target) as client:
        await client.put(b"a")
        found = await database(client)
        member = (await client.call("Maintenance/Status", b"", pb.StatusResponse)).leader
    assert sorted(found.roots) == BUCKETS
    meta = dict(found.bucket(b"meta"))
    assert sorted(meta) == [b"confState", b"consistent_index", b"storageVersion", b"term"]
    assert meta[b"confState"] == b'{"voters":[%d],"auto_leave":false}' % member
    assert meta[b"storageVersion"] == b"3.7.0"
    assert meta[b"term"] == (2).to_bytes(8, "big")
    assert dict(found.bucket(b"cluster")) == {b"clusterVersion": b"3.7.0"}
    assert dict(found.bucket(b"auth")) == {b"authRevision": (1).to_bytes(8, "big")}
    assert [key for key, _ in found.bucket(b"members")] == [b"%x" % member]
    for name in (b"alarm", b"authRoles", b"authUsers", b"lease", b"members_removed"):
        assert found.bucket(name) == []


async def test_the_file_holds_what_compaction_left(fresh):
    async with Client(fresh.target) as client:
        lease = (await client.grant(1000)).ID
        await client.put(b"gone")  # 2
        await client.delete(b"gone")  # 3
        await client.put(b"a", b"1")  # 4
        await client.put(b"a", b"2")  # 5
        await client.put(b"here")  # 6
        await client.txn(success=[delete_op(b"here"), put_op(b"b", lease=lease)])  # 7
        await client.put(b"a", bytes(10_000))  # 8
        await client.delete(b"a")  # 9
        await client.compact(7, physical=True)
        await client.grant(60, 77)
        found = await database(client)
    rows = changes(found)
    assert sorted(rows) == [
        (5, 0, False),
        (7, 0, True),
        (7, 1, False),
        (8, 0, False),
        (9, 0, True),
    ]
    assert rows[5, 0, False] == kv_pb2.KeyValue(
        key=b"a", create_revision=4, mod_revision=5, version=2, value=b"2"
    )
    assert rows[7, 0, True] == kv_pb2.KeyValue(key=b"here")
    assert rows[7, 1, False] == kv_pb2.KeyValue(
        key=b"b", create_revision=7, mod_revision=7, version=1, lease=lease
    )
    assert len(rows[8, 0, False].value) == 10_000
    meta = dict(found.bucket(b"meta"))
    compacted = struct.pack(">QcQ", 7, b"_", 0)
    assert meta[b"finishedCompactRev"] == meta[b"scheduledCompactRev"] == compacted
    leases = dict(found.bucket(b"lease"))
    assert sorted(leases) == sorted(each.to_bytes(8, "big") for each in (lease, 77))
    assert leases[(77).to_bytes(8, "big")] == b"\x08\x4d\x10\x3c"


async def test_leases_of_any_id_and_alarms_are_in_the_file(fresh):
    async with Client(fresh.target) as client:
        await client.grant(1000, -5)
        await client.grant(1000, 5)
        member = (await client.call("Maintenance/Status", b"", pb.StatusResponse)).leader
        request = pb.AlarmRequest(action=1, memberID=member, alarm=1)  # type: ignore[arg-type]
        await client.call("Maintenance/Alarm", request, pb.AlarmResponse)
        found = await database(client)
    assert [int.from_bytes(key, "big", signed=True) for key, _ in found.bucket(b"lease")] == [
        5,
        -5,
    ]
    ((alarm, value),) = found.bucket(b"alarm")
    assert (pb.AlarmMember.FromString(alarm).memberID, value) == (member, b"")


async def test_users_roles_and_the_switch_are_in_the_file(fresh):
    async with Client(fresh.target) as client:
        for name, request in AUTH_CALLS:
            await client.call(f"Auth/{name}", request, pb.AuthEnableResponse)
        answer = await client.call(
            "Auth/Authenticate",
            pb.AuthenticateRequest(name="root", password="secret"),
            pb.AuthenticateResponse,
        )
        with refused(USER_EMPTY):
            await database(client)
        client.metadata = [("token", answer.token)]
        found = await database(client)
    users = dict(found.bucket(b"authUsers"))
    assert list(users) == [b"cn", b"root"]
    root = auth_pb2.User.FromString(users[b"root"])
    assert root.password.startswith(b"$2a$")
    assert list(root.roles) == ["root"]
    assert auth_pb2.User.FromString(users[b"cn"]).options.no_password
    assert dict(found.bucket(b"authRoles")) == {
        b"reader": b"\x0a\x06reader\x12\x06\x12\x01a\x1a\x01b\x12\x05\x08\x02\x12\x01k"
    }
    assert dict(found.bucket(b"auth")) == {
        b"authEnabled": b"\x01",
        b"authRevision": len(AUTH_CALLS).to_bytes(8, "big"),
    }


async def test_snapshots_may_be_taken_at_once(client, prefix):
    await client.put(prefix, bytes(100_000))
    taken = await asyncio.gather(take(client), take(client), take(client))
    for *chunks, last in taken:
        assert last.blob == hashlib.sha256(b"".join(chunk.blob for chunk in chunks)).digest()
