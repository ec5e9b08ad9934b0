"""Who may do what while auth is on (contract 2.10; traps 57 and 60)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.auth import (
    BAD_TOKEN,
    DENIED,
    EVERYTHING,
    NOBODY,
    READ,
    READWRITE,
    ROOT,
    WRITE,
    Auth,
    bearing,
)
from tests.support.client import (
    Client,
    Code,
    Refusal,
    delete_op,
    get_op,
    put_op,
    refused,
    txn_op,
    when,
)

NO_MEMBER = Refusal(Code.NOT_FOUND, "etcdserver: member not found")


async def keep_alive(client: Client, lease: int) -> Any:
    return await client.keep_alive(lease)


async def stream(client: Client, key: bytes, end: bytes = b"") -> list[bytes]:
    return [kv.key async for chunk in client.stream(key, end) for kv in chunk.kvs]


def call(method: str, request: Any, answer: type[Any]) -> Callable[[Client], Any]:
    return lambda client: client.call(method, request, answer)


async def first_of_snapshot(client: Client) -> None:
    raw: Any = client.channel.unary_stream("/etcdserverpb.Maintenance/Snapshot")
    stream = raw(b"", metadata=tuple(client.metadata), timeout=30)
    await stream.read()
    stream.cancel()


FOR_USERS: dict[str, Callable[[Client], Any]] = {
    "Grant": lambda client: client.grant(60),
    "Revoke": lambda client: client.revoke(404),
    "KeepAlive": lambda client: keep_alive(client, 404),
    "TimeToLive": lambda client: client.time_to_live(404),
    "TimeToLive with keys": lambda client: client.time_to_live(404, keys=True),
    "Leases": lambda client: client.leases(),
    "Status": call("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse),
    "Alarm GET": call("Maintenance/Alarm", pb.AlarmRequest(), pb.AlarmResponse),
    "MemberList": call(
        "Cluster/MemberList", pb.MemberListRequest(linearizable=True), pb.MemberListResponse
    ),
}
"""What every user may do, and nobody else."""

FOR_ROOT: dict[str, Callable[[Client], Any]] = {
    "Compact": lambda client: client.compact(1),
    "Defragment": call("Maintenance/Defragment", pb.DefragmentRequest(), pb.DefragmentResponse),
    "Hash": call("Maintenance/Hash", pb.HashRequest(), pb.HashResponse),
    "HashKV": call("Maintenance/HashKV", pb.HashKVRequest(), pb.HashKVResponse),
    "Snapshot": first_of_snapshot,
    "MoveLeader": call("Maintenance/MoveLeader", pb.MoveLeaderRequest(), pb.MoveLeaderResponse),
    "Downgrade": call(
        "Maintenance/Downgrade", pb.DowngradeRequest(version="3.6"), pb.DowngradeResponse
    ),
    "Alarm": call(
        "Maintenance/Alarm",
        pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, alarm=pb.NOSPACE),
        pb.AlarmResponse,
    ),
    "MemberAdd": call(
        "Cluster/MemberAdd",
        pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"]),
        pb.MemberAddResponse,
    ),
    "MemberRemove": call(
        "Cluster/MemberRemove", pb.MemberRemoveRequest(ID=1), pb.MemberRemoveResponse
    ),
    "MemberUpdate": call(
        "Cluster/MemberUpdate",
        pb.MemberUpdateRequest(ID=1, peerURLs=["http://127.0.0.1:1"]),
        pb.MemberUpdateResponse,
    ),
    "MemberPromote": call(
        "Cluster/MemberPromote", pb.MemberPromoteRequest(ID=1), pb.MemberPromoteResponse
    ),
    "AuthEnable": lambda client: Auth(client).enable(),
    "AuthDisable": lambda client: Auth(client).disable(),
    "UserAdd": lambda client: Auth(client).add_user("x"),
    "UserDelete": lambda client: Auth(client).delete_user("x"),
    "UserList": lambda client: Auth(client).users(),
    "UserGet": lambda client: Auth(client).roles_of("x"),
    "UserChangePassword": lambda client: Auth(client).change_password("x", "y"),
    "UserGrantRole": lambda client: Auth(client).grant_role("x", "y"),
    "UserRevokeRole": lambda client: Auth(client).revoke_role("x", "y"),
    "RoleAdd": lambda client: Auth(client).add_role("x"),
    "RoleDelete": lambda client: Auth(client).delete_role("x"),
    "RoleList": lambda client: Auth(client).roles(),
    "RoleGet": lambda client: Auth(client).permissions("x"),
    "RoleGrantPermission": lambda client: Auth(client).grant("x", READ, b"k"),
    "RoleRevokePermission": lambda client: Auth(client).revoke("x", b"k"),
}
"""What root alone may do."""

FOR_KEYS: dict[str, Callable[[Client], Any]] = {
    "Range": lambda client: client.get(b"k"),
    "serializable Range": lambda client: client.get(b"k", serializable=True),
    "RangeStream": lambda client: stream(client, b"k"),
    "Put": lambda client: client.put(b"k"),
    "DeleteRange": lambda client: client.delete(b"k"),
    "Txn that reads": lambda client: client.txn(success=[get_op(b"k")]),
    "Txn that writes": lambda client: client.txn(success=[put_op(b"k")]),
}
"""What needs a permission for the key."""


def named(table: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("request_of", list(table.values()), ids=list(table))


# -- who calls -----------------------------------------------------------------------------


@named({**FOR_USERS, **FOR_ROOT, **FOR_KEYS})
async def test_who_does_not_say_who_he_is_is_refused(guarded, auth, request_of):
    """T60: `user name is empty`, whatever is asked."""
    await auth.enable_with_root()
    async with Client(guarded.target) as anybody:
        with refused(NOBODY):
            await request_of(anybody)


async def test_anybody_may_ask_whether_auth_is_on(guarded, auth):
    await auth.enable_with_root()
    async with Client(guarded.target) as anybody:
        assert (await Auth(anybody).status()).enabled


@pytest.mark.parametrize("token", ["x", "x.1", "", "Bearer x", "a.b.c"])
async def test_a_token_that_nobody_has_issued_is_refused(guarded, auth, token):
    await auth.enable_with_root()
    async with bearing(guarded, token) as forger:
        for request_of in (*FOR_USERS.values(), *FOR_ROOT.values(), *FOR_KEYS.values()):
            with refused(BAD_TOKEN):
                await request_of(forger)
        with refused(BAD_TOKEN):
            await Auth(forger).status()


async def test_tokens_are_not_looked_at_while_auth_is_off(guarded, auth):
    async with bearing(guarded, "x") as client:
        await client.put(b"k")
        assert not (await Auth(client).status()).enabled


@pytest.mark.parametrize("key", ["token", "authorization"])
@pytest.mark.parametrize("before", ["", "Bearer "])
async def test_a_token_comes_in_either_of_two_headers(guarded, auth, key, before):
    token = await auth.enable_with_root()
    async with bearing(guarded, before + token, key) as client:
        await client.put(b"k")


@named(FOR_USERS)
async def test_every_user_may(as_user, request_of):
    alice = await as_user()
    if request_of is FOR_USERS["Revoke"]:
        with refused(Refusal(Code.NOT_FOUND, "etcdserver: requested lease not found")):
            await request_of(alice)
    else:
        await request_of(alice)


@named(FOR_ROOT)
async def test_only_root_may(as_user, request_of):
    alice = await as_user(EVERYTHING)
    with refused(DENIED):
        await request_of(alice)


async def test_whoever_has_the_role_root_may_do_everything(as_user, auth):
    alice = await as_user()
    await auth.grant_role("alice", ROOT)
    await alice.put(b"k")
    assert await Auth(alice).users() == ["alice", ROOT]
    with refused(NO_MEMBER):
        await FOR_ROOT["MemberRemove"](alice)


async def test_a_user_may_see_himself_and_his_roles(as_user, auth):
    alice = await as_user((READ, b"k", b""))
    await auth.user("bob")
    assert await Auth(alice).roles_of("alice") == ["alice"]
    assert await Auth(alice).permissions("alice") == [(READ, b"k", b"")]
    for question in (Auth(alice).roles_of("bob"), Auth(alice).permissions("bob")):
        with refused(DENIED):
            await question


# -- keys ----------------------------------------------------------------------------------


@named(FOR_KEYS)
async def test_a_key_needs_a_permission(as_user, request_of):
    alice = await as_user((READWRITE, b"a", b"k"), (READWRITE, b"k\0", b"\0"))
    with refused(DENIED):
        await request_of(alice)


@named(FOR_KEYS)
async def test_a_permission_for_a_key_is_enough_for_it(as_user, request_of):
    alice = await as_user((READWRITE, b"k", b""))
    await request_of(alice)


@named({name: FOR_KEYS[name] for name in ("Put", "DeleteRange", "Txn that writes")})
async def test_reading_does_not_let_write(as_user, request_of):
    alice = await as_user((READ, b"\0", b"\0"))
    await alice.get(b"k")
    with refused(DENIED):
        await request_of(alice)


@named({name: FOR_KEYS[name] for name in ("Range", "RangeStream", "Txn that reads")})
async def test_writing_does_not_let_read(as_user, request_of):
    alice = await as_user((WRITE, b"\0", b"\0"))
    await alice.put(b"k")
    with refused(DENIED):
        await request_of(alice)


async def test_a_type_of_permission_that_nobody_knows_lets_nothing(as_user):
    alice = await as_user((7, b"\0", b"\0"))
    for request in (alice.get(b"k"), alice.put(b"k")):
        with refused(DENIED):
            await request


ALLOWED = [
    (b"a", b"b"),
    (b"a", b""),
    (b"ab", b"abc"),
    (b"a", b"c"),  # two permissions that touch
    (b"a", b"ca"),  # and a third that overlaps
    (b"x", b"\0"),
    (b"xyz", b"xyzz"),
    (b"y", b"x\xff"),  # nothing can be in it
]
FORBIDDEN = [
    (b"a", b"d"),
    (b"a", b"\0"),
    (b"\0", b"b"),
    (b"d", b""),
    (b"c", b"y"),
    (b"e", b"d"),
]


@pytest.mark.parametrize(
    ("key", "end", "allowed"),
    [(*span, True) for span in ALLOWED] + [(*span, False) for span in FORBIDDEN],
)
@pytest.mark.parametrize("method", ["get", "delete", "txn"])
async def test_a_range_has_to_lie_inside_what_several_permissions_give(
    as_user, key, end, allowed, method
):
    alice = await as_user(
        (READWRITE, b"a", b"b"),
        (READWRITE, b"b", b"c"),
        (READ, b"bb", b"cb"),
        (WRITE, b"bb", b"cb"),
        (READWRITE, b"bc", b"cb"),
        (READWRITE, b"x", b"\0"),
    )
    request = {
        "get": lambda: alice.get(key, end),
        "delete": lambda: alice.delete(key, end),
        "txn": lambda: alice.txn(success=[get_op(key, end)]),
    }[method]
    if allowed:
        await request()
    else:
        with refused(DENIED):
            await request()


async def test_permissions_of_several_roles_count_together(as_user, auth):
    alice = await as_user((READ, b"a", b"b"))
    await auth.add_role("more", (READ, b"b", b"c"))
    with refused(DENIED):
        await alice.get(b"a", b"c")
    await auth.grant_role("alice", "more")
    await alice.get(b"a", b"c")
    await auth.delete_role("more")
    with refused(DENIED):
        await alice.get(b"a", b"c")


async def test_a_previous_value_needs_to_be_readable(as_user):
    alice = await as_user((WRITE, b"a", b"b"), (READWRITE, b"b", b"c"))
    for key, allowed in ((b"a", False), (b"b", True)):
        await alice.put(key)
        for request in (
            alice.put(key, prev_kv=True),
            alice.delete(key, prev_kv=True),
            alice.txn(success=[put_op(key, prev_kv=True)]),
            alice.txn(success=[delete_op(key, prev_kv=True)]),
        ):
            if allowed:
                await request
            else:
                with refused(DENIED):
                    await request


async def test_a_compare_reads(as_user):
    alice = await as_user((READWRITE, b"a", b"b"))
    await alice.txn([when(b"a", version=0)], [put_op(b"a")])
    for key, end in ((b"b", b""), (b"a", b"c")):
        with refused(DENIED):
            await alice.txn([when(key, end=end, version=0)], [put_op(b"a")])


async def test_both_branches_of_a_transaction_count(as_user):
    """T57."""
    alice = await as_user((READWRITE, b"a", b"b"))
    for foreign in (
        get_op(b"x"),
        put_op(b"x"),
        delete_op(b"x"),
        txn_op([when(b"x", version=0)]),
        txn_op(success=[put_op(b"x")]),
        txn_op(failure=[txn_op(failure=[get_op(b"x")])]),
    ):
        for success, failure in (([foreign], []), ([], [foreign])):
            with refused(DENIED):
                await alice.txn((), success, failure)
    nested = txn_op([when(b"a", version=0)], [put_op(b"a")], [delete_op(b"a")])
    await alice.txn((), [nested], [get_op(b"a")])


async def test_a_refused_transaction_changes_nothing(as_user, auth):
    alice = await as_user((READWRITE, b"a", b"b"))
    before = await auth.client.revision()
    with refused(DENIED):
        await alice.txn(success=[put_op(b"a"), put_op(b"x")])
    assert await auth.client.revision() == before


async def test_what_is_malformed_is_refused_before_permissions_are_looked_at(as_user):
    alice = await as_user()
    for request in (alice.get(b""), alice.put(b""), alice.delete(b"")):
        with refused(Refusal(Code.INVALID_ARGUMENT, "etcdserver: key is not provided")):
            await request


async def test_permissions_are_looked_at_before_leases_and_revisions(as_user):
    alice = await as_user()
    for request in (
        alice.put(b"k", lease=404),
        alice.get(b"k", revision=1 << 40),
        alice.put(b"k", ignore_value=True),
    ):
        with refused(DENIED):
            await request
