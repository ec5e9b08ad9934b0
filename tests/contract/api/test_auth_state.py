"""Users, roles and the switch, and what changes of them are refused (contract 2.10)."""

from __future__ import annotations

import base64

import bcrypt
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.auth import (
    BAD_MANAGEMENT,
    EMPTY_ROLE,
    FAILED,
    NO_PASSWORD,
    NO_ROLE,
    NO_ROOT,
    NO_ROOT_ROLE,
    NO_USER,
    NOBODY,
    NOT_ENABLED,
    NOT_GIVEN,
    NOT_GRANTED,
    NOT_HELD,
    READ,
    READWRITE,
    ROLE_EXISTS,
    ROOT,
    SECRET,
    TOO_LONG,
    USER_EXISTS,
    WRITE,
)
from tests.support.client import refused


async def test_a_new_store_has_auth_off_at_revision_1(fresh, connect):
    status = await connect(fresh).status()
    assert (status.enabled, status.authRevision) == (False, 1)


async def test_every_change_raises_the_auth_revision_by_one(auth):
    revision = await auth.revision()
    for change in (
        auth.add_user("a"),
        auth.add_role("r"),
        auth.grant("r", READ, b"k"),
        auth.grant("r", WRITE, b"k"),
        auth.grant_role("a", "r"),
        auth.revoke_role("a", "r"),
        auth.revoke("r", b"k"),
        auth.change_password("a", "new"),
        auth.delete_role("r"),
        auth.delete_user("a"),
    ):
        await change
        revision += 1
        assert await auth.revision() == revision


async def test_what_changes_nothing_leaves_the_auth_revision(auth):
    await auth.add_user("a")
    await auth.add_role("r")
    await auth.grant_role("a", "r")
    revision = await auth.revision()
    await auth.grant_role("a", "r")
    await auth.disable()
    with refused(USER_EXISTS):
        await auth.add_user("a")
    assert await auth.revision() == revision


async def test_enabling_does_not_raise_the_auth_revision_and_disabling_does(auth):
    await auth.add_user(ROOT)
    await auth.grant_role(ROOT, ROOT)
    revision = await auth.revision()
    await auth.enable()
    assert await auth.revision() == revision
    auth.client.metadata = (("token", await auth.login(ROOT)),)
    await auth.disable()
    auth.client.metadata = ()
    assert await auth.revision() == revision + 1


async def test_granting_what_is_granted_raises_the_auth_revision(auth):
    await auth.add_role("r", (READ, b"k", b""))
    revision = await auth.revision()
    await auth.grant("r", READ, b"k")
    assert await auth.revision() == revision + 1


async def test_auth_changes_take_no_revision_of_the_store_and_show_it(auth):
    before = (await auth.client.put(b"k")).header
    for change in (
        auth.add_user("a"),
        auth.add_role("r"),
        auth.grant("r", READ, b"k"),
        auth.grant_role("a", "r"),
        auth.status(),
        auth.disable(),
    ):
        assert (await change).header == before


async def test_enabling_needs_the_user_root_with_the_role_root(auth):
    with refused(NO_ROOT):
        await auth.enable()
    await auth.add_user(ROOT)
    with refused(NO_ROOT_ROLE):
        await auth.enable()
    await auth.add_role("other")
    await auth.grant_role(ROOT, "other")
    with refused(NO_ROOT_ROLE):
        await auth.enable()


async def test_enabling_and_disabling_again_is_no_error(auth):
    await auth.disable()
    await auth.add_user(ROOT)
    await auth.grant_role(ROOT, ROOT)
    await auth.enable()
    auth.client.metadata = (("token", await auth.login(ROOT)),)
    await auth.enable()
    assert (await auth.status()).enabled
    await auth.disable()
    await auth.disable()
    assert not (await auth.status()).enabled


async def test_nobody_can_authenticate_while_auth_is_off(auth):
    await auth.add_user("a")
    with refused(NOT_ENABLED):
        await auth.login("a")


# -- users ---------------------------------------------------------------------------------


async def test_a_user_needs_a_name_of_his_own(auth):
    with refused(NOBODY):
        await auth.add_user("")
    await auth.add_user("a")
    with refused(USER_EXISTS):
        await auth.add_user("a")


async def test_a_name_may_have_700_bytes(auth):
    await auth.add_user("x" * 700)
    await auth.add_role("y" * 700)
    assert await auth.users() == ["x" * 700]
    assert await auth.roles() == ["y" * 700]


async def test_a_name_may_have_more_than_700_bytes(auth):
    await auth.add_user("x" * 701)
    assert await auth.users() == ["x" * 701]


async def test_users_are_listed_in_the_order_of_their_bytes(auth):
    for name in ("b", "a", "Z", "é", "a b"):
        await auth.add_user(name)
    assert await auth.users() == ["Z", "a", "a b", "b", "é"]


async def test_a_user_who_is_not_there_cannot_be_changed(auth):
    await auth.add_role("r")
    for change in (
        auth.delete_user("x"),
        auth.change_password("x", "y"),
        auth.grant_role("x", "r"),
        auth.grant_role("x", "missing"),
        auth.revoke_role("x", "r"),
        auth.roles_of("x"),
    ):
        with refused(NO_USER):
            await change


async def test_a_role_has_to_be_there_to_be_granted_except_root(auth):
    await auth.add_user("a")
    with refused(NO_ROLE):
        await auth.grant_role("a", "missing")
    await auth.grant_role("a", ROOT)
    assert await auth.roles_of("a") == [ROOT]
    assert await auth.roles() == []


async def test_roles_of_a_user_are_sorted(auth):
    await auth.add_user("a")
    for role in ("z", "b", "m"):
        await auth.add_role(role)
        await auth.grant_role("a", role)
    assert await auth.roles_of("a") == ["b", "m", "z"]


async def test_a_role_that_is_not_held_cannot_be_revoked(auth):
    await auth.add_user("a")
    await auth.add_role("r")
    for role in ("r", "missing"):
        with refused(NOT_HELD):
            await auth.revoke_role("a", role)


async def test_deleting_a_role_takes_it_from_its_users(auth):
    await auth.user("a")
    await auth.grant_role("a", ROOT)
    await auth.delete_role("a")
    assert await auth.roles_of("a") == [ROOT]


async def test_a_password_has_at_most_72_bytes(auth):
    await auth.add_user("a", "x" * 72)
    for change in (auth.add_user("b", "x" * 73), auth.change_password("a", "é" * 37)):
        with refused(TOO_LONG):
            await change


async def test_more_than_72_bytes_of_a_password_are_not_compared(auth):
    await auth.add_user("a", "x" * 72)
    await auth.enable_with_root()
    assert await auth.login("a", "x" * 72 + "y")
    with refused(FAILED):
        await auth.login("a", "x" * 71)


async def test_a_hash_that_comes_with_a_new_user_is_not_used(auth):
    hashed = base64.b64encode(bcrypt.hashpw(b"hashed", bcrypt.gensalt(4))).decode()
    await auth.add_user("a", "plain", hashed=hashed)
    await auth.enable_with_root()
    assert await auth.login("a", "plain")
    with refused(FAILED):
        await auth.login("a", "hashed")


async def test_a_password_can_be_changed_to_a_hash(auth):
    hashed = base64.b64encode(bcrypt.hashpw(b"hashed", bcrypt.gensalt(4))).decode()
    await auth.add_user("a")
    await auth.change_password("a", "", hashed)
    await auth.enable_with_root()
    assert await auth.login("a", "hashed")


@pytest.mark.parametrize("hashed", ["", base64.b64encode(b"no hash").decode()])
async def test_a_hash_that_is_none_matches_no_password(auth, hashed):
    await auth.add_user("a")
    await auth.change_password("a", "", hashed)
    await auth.enable_with_root()
    for password in ("", SECRET):
        with refused(FAILED):
            await auth.login("a", password)


async def test_a_hash_that_is_not_base64_is_refused(auth):
    await auth.add_user("a")
    with refused(NO_PASSWORD):
        await auth.change_password("a", "", "*")
    with refused(NO_USER):
        await auth.change_password("x", "", "*")


async def test_a_user_without_password_cannot_authenticate(auth):
    await auth.add_user("a", "", no_password=True)
    await auth.change_password("a", "given")
    await auth.enable_with_root()
    with refused(NO_PASSWORD):
        await auth.login("a", "given")


async def test_an_empty_password_is_a_password(auth):
    await auth.add_user("a", "")
    await auth.enable_with_root()
    assert await auth.login("a", "")


# -- roles ---------------------------------------------------------------------------------


async def test_a_role_needs_a_name_of_its_own(auth):
    with refused(EMPTY_ROLE):
        await auth.add_role("")
    await auth.add_role("r")
    with refused(ROLE_EXISTS):
        await auth.add_role("r")


async def test_roles_are_listed_in_the_order_of_their_bytes(auth):
    for name in ("b", "a", "Z"):
        await auth.add_role(name)
    assert await auth.roles() == ["Z", "a", "b"]


async def test_a_role_that_is_not_there_cannot_be_changed(auth):
    for change in (
        auth.delete_role("x"),
        auth.grant("x", READ, b"k"),
        auth.revoke("x", b"k"),
        auth.permissions("x"),
    ):
        with refused(NO_ROLE):
            await change


async def test_a_permission_has_to_be_given(auth):
    await auth.add_role("r")
    request = pb.AuthRoleGrantPermissionRequest(name="r")
    with refused(NOT_GIVEN):
        await auth.client.call(
            "Auth/RoleGrantPermission", request, pb.AuthRoleGrantPermissionResponse
        )


@pytest.mark.parametrize(
    ("key", "end"),
    [(b"", b""), (b"", b"a"), (b"", b"\0"), (b"b", b"a"), (b"b", b"b")],
)
async def test_a_permission_is_for_a_key_or_a_range_that_is_one(auth, key, end):
    await auth.add_role("r")
    with refused(BAD_MANAGEMENT):
        await auth.grant("r", READ, key, end)


@pytest.mark.parametrize(
    ("key", "end"), [(b"a", b"b"), (b"a", b"\0"), (b"\0", b"\0"), (b"a", b"")]
)
async def test_a_permission_may_be_for_a_key_a_range_or_all_from_a_key(auth, key, end):
    await auth.add_role("r", (READ, key, end))
    assert await auth.permissions("r") == [(READ, key, end)]


async def test_granting_a_range_again_replaces_its_type(auth):
    await auth.add_role("r", (READ, b"a", b"c"), (WRITE, b"a", b"c"))
    assert await auth.permissions("r") == [(WRITE, b"a", b"c")]


async def test_permissions_are_sorted_by_key(auth):
    given = [(READ, b"b", b""), (WRITE, b"a", b"\0"), (READWRITE, b"ab", b"")]
    await auth.add_role("r", *given)
    assert await auth.permissions("r") == [given[1], given[2], given[0]]


async def test_of_ranges_from_one_key_the_first_alone_is_replaced(auth):
    """As etcd 3.7.3 does: it looks at the first permission with the key only."""
    await auth.add_role("r", (READ, b"a", b"b"), (READ, b"a", b"c"), (WRITE, b"a", b"c"))
    assert await auth.permissions("r") == [
        (READ, b"a", b"b"),
        (READ, b"a", b"c"),
        (WRITE, b"a", b"c"),
    ]
    await auth.revoke("r", b"a", b"c")
    assert await auth.permissions("r") == [(READ, b"a", b"b")]


async def test_a_permission_is_revoked_by_exactly_its_range(auth):
    await auth.add_role("r", (READ, b"a", b"c"))
    for key, end in ((b"a", b""), (b"a", b"b"), (b"b", b"c")):
        with refused(NOT_GRANTED):
            await auth.revoke("r", key, end)
    await auth.revoke("r", b"a", b"c")
    assert await auth.permissions("r") == []


async def test_a_type_of_permission_that_nobody_knows_is_kept(auth):
    await auth.add_role("r", (7, b"a", b""))
    assert await auth.permissions("r") == [(7, b"a", b"")]


async def test_the_role_root_shows_that_it_may_do_everything(auth):
    await auth.add_role(ROOT, (READ, b"a", b""))
    assert await auth.permissions(ROOT) == [(READWRITE, b"", b"\0")]


# -- while auth is on ----------------------------------------------------------------------


async def test_root_keeps_what_makes_him_root_while_auth_is_on(auth):
    await auth.add_role(ROOT)
    auth.client.metadata = (("token", await auth.enable_with_root()),)
    for change in (
        auth.delete_user(ROOT),
        auth.revoke_role(ROOT, ROOT),
        auth.delete_role(ROOT),
    ):
        with refused(BAD_MANAGEMENT):
            await change
    await auth.disable()
    await auth.revoke_role(ROOT, ROOT)
    await auth.delete_role(ROOT)
    await auth.delete_user(ROOT)
    assert await auth.users() == []
