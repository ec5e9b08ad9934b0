"""Users, roles and permissions as values, beside the simplest way to say the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.etcdpb import auth_pb2
from datastore.shim.errors import PermissionDenied
from datastore.shim.mvcc.auth import (
    ANONYMOUS,
    ROOT,
    SERVER,
    Access,
    Auth,
    Identity,
    Permission,
    Spans,
    User,
)
from datastore.shim.mvcc.auth_changes import change
from datastore.shim.mvcc.auth_ops import AuthEnable, UserAdd, UserChangePassword, UserGrantRole
from datastore.shim.mvcc.auth_rows import ROLE, SWITCH, USER, decode, encode
from datastore.shim.mvcc.keyrange import KeyRange
from datastore.shim.mvcc.ops import LeaseGrant, LeaseRevoke, Put
from datastore.shim.mvcc.overlay import Overlay
from datastore.shim.mvcc.store import Store

keys = st.text("abcd", min_size=1, max_size=2).map(str.encode)
ends = keys | st.sampled_from([b"", b"\0"])
spans = st.builds(KeyRange.from_wire, keys, ends)
real_spans = spans.filter(lambda span: not span.is_empty)
KEYS = {x + y for x in (b"a", b"b", b"c", b"d") for y in (b"", b"a", b"b", b"c", b"d")}
POINTS = sorted(KEYS | {key + b"\0" for key in KEYS})
"""One for each place where a span can begin or end: between neighbours nothing changes."""


@given(st.lists(real_spans, max_size=5), real_spans)
def test_spans_cover_a_range_when_they_hold_each_of_its_keys(held, wanted):
    points = [point for point in POINTS if wanted.contains(point)]
    assert Spans(held).cover(wanted) == all(
        any(span.contains(point) for span in held) for point in points
    )


@given(st.lists(real_spans, max_size=5), keys)
def test_spans_cover_a_key_when_one_of_them_holds_it(held, key):
    expected = any(span.contains(key) for span in held)
    assert Spans(held).cover(KeyRange.from_wire(key, b"")) == expected


names = st.text(min_size=1, max_size=8)
permissions = st.builds(
    Permission, st.integers(-3, 5), st.binary(max_size=4), st.binary(max_size=4)
)
users = st.builds(
    User, st.binary(max_size=8), st.lists(names, max_size=3).map(tuple), st.booleans()
)
states = st.builds(
    Auth,
    enabled=st.booleans(),
    revision=st.integers(1, (1 << 64) - 1),
    secret=st.binary(max_size=32),
    users=st.dictionaries(names, users, max_size=3),
    roles=st.dictionaries(names, st.lists(permissions, max_size=3).map(tuple), max_size=3),
)


@given(states)
def test_a_state_is_what_its_rows_say(state):
    assert decode(encode(state)) == state


@given(states)
def test_rows_of_users_and_roles_are_the_messages_that_etcd_stores(state):
    rows = encode(state)
    for name, user in state.users.items():
        message = auth_pb2.User(
            name=name.encode(),
            password=user.password,
            roles=user.roles,
            options=auth_pb2.UserAddOptions(no_password=user.no_password),
        )
        assert rows.pop((USER, name.encode())) == message.SerializeToString()
    for name, held in state.roles.items():
        role = auth_pb2.Role(name=name.encode())
        for permission in held:
            stored = role.keyPermission.add(key=permission.key, range_end=permission.end)
            stored.permType = permission.access
        assert rows.pop((ROLE, name.encode())) == role.SerializeToString()
    assert list(rows) == [(SWITCH, b"")]


def test_no_rows_are_the_state_of_a_new_store():
    assert decode({}) == Auth() == Auth(enabled=False, revision=1)


@pytest.mark.parametrize(
    "body", [b"\x12\x09a", b"\x12", b"\x1a\x01\xff", b"\x0b", b"\x10\x01", b"\x12\x04\x0a\x01x"]
)
@pytest.mark.parametrize("kind", [USER, ROLE])
def test_a_row_that_cannot_be_read_is_told_of(kind, body):
    """Or it is another valid message, whose unknown fields are passed over."""
    try:
        decode({(SWITCH, b""): bytes(9), (kind, b"x"): body})
    except ValueError:
        return
    message = (auth_pb2.User if kind == USER else auth_pb2.Role).FromString(body)
    assert message is not None


def test_no_text_shows_a_secret():
    state = Auth(secret=b"hidden", users={"a": User(b"hidden")})
    for shown in (
        state,
        AuthEnable(b"hidden"),
        UserAdd("a", b"hidden"),
        UserChangePassword("a", b"hidden"),
    ):
        assert "hidden" not in repr(shown)


# -- in an overlay -------------------------------------------------------------------------

ALICE = Auth(
    enabled=True,
    users={ROOT: User(roles=(ROOT,)), "alice": User(roles=("r",))},
    roles={"r": (Permission(Access.READWRITE, b"a", b"b"),)},
)
alice = Identity("alice", 1)
root = Identity(ROOT, 1)


def overlay_on(auth: Auth) -> Overlay:
    store = Store()
    store.auth = auth
    return Overlay(store, {})


def test_the_server_itself_needs_no_permission():
    overlay = overlay_on(ALICE)
    overlay.evaluate(Put(b"x"), SERVER)
    with pytest.raises(PermissionDenied):
        overlay.evaluate(Put(b"x"), alice)


def test_a_write_is_checked_against_what_its_batch_has_changed_before_it():
    overlay = overlay_on(ALICE)
    with pytest.raises(PermissionDenied):
        overlay.evaluate(Put(b"x"), alice)
    overlay.evaluate(UserGrantRole("alice", ROOT), root)
    overlay.evaluate(Put(b"x"), Identity("alice", 2))
    assert overlay.auth is not None
    assert overlay.auth.revision == 2


def test_keys_that_the_batch_has_tied_to_a_lease_count():
    overlay = overlay_on(ALICE)
    overlay.evaluate(LeaseGrant(7, 60), alice)
    overlay.evaluate(Put(b"a", lease=7), alice)
    overlay.evaluate(Put(b"x", lease=7), root)
    for write in (Put(b"a", lease=7), LeaseRevoke(7)):
        with pytest.raises(PermissionDenied):
            overlay.evaluate(write, alice)
    overlay.evaluate(Put(b"x"), root)
    overlay.evaluate(LeaseRevoke(7), alice)
    assert overlay.find(b"a") is None


def test_a_refused_write_leaves_no_trace():
    overlay = overlay_on(ALICE)
    for caller in (alice, ANONYMOUS):
        with pytest.raises(Exception, match="etcdserver: "):
            overlay.evaluate(UserAdd("bob"), caller)
        with pytest.raises(Exception, match="etcdserver: "):
            overlay.evaluate(Put(b"x"), caller)
    assert overlay.empty


def test_what_changes_nothing_is_not_appended():
    overlay = overlay_on(ALICE)
    overlay.evaluate(UserGrantRole("alice", "r"), root)
    assert overlay.empty
    assert change(ALICE, AuthEnable(b"other secret")) is ALICE


def test_permissions_follow_from_a_state_and_not_from_the_one_before():
    ALICE.check_write(alice, b"a")
    without = replace(ALICE, roles={"r": ()})
    with pytest.raises(PermissionDenied):
        without.check_write(alice, b"a")
