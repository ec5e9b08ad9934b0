"""Random programs of several users, one of whom is root."""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf.message import Message
from hypothesis import strategies as st

from datastore.etcdpb import auth_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.programs import PRELUDE as KEYS
from tests.support.programs import ends, keys, one_in, requests

ROOT, NOBODY, FORGER = "root", "", "a forger"
USERS = (ROOT, "alice", "bob")
ROLES = (ROOT, "reader", "writer")
PASSWORDS = ("secret", "other")
HASH = "JDJhJDA0JGFiY2RlZmdoaWprbG1ub3BxcnN0dXVlYmdqWVJ6aEhZLnVEbGN1V3RWYlFrQlBhOXJsY1R5"
"""A bcrypt hash in base64, of a password that nobody knows."""


class Step(NamedTuple):
    """Who asks for what, with a new token or with the last one."""

    actor: str
    request: Message
    fresh: bool = False


users = one_in(10, st.sampled_from(("", "carol")), st.sampled_from(USERS))
roles = one_in(10, st.sampled_from(("", "none")), st.sampled_from(ROLES))
passwords = st.sampled_from(PASSWORDS)
permissions = one_in(
    15,
    None,
    st.builds(
        auth_pb2.Permission,
        permType=st.sampled_from((0, 1, 2)),
        key=one_in(20, b"", keys),
        range_end=ends,
    ),
)


@st.composite
def additions(draw: st.DrawFn) -> pb.AuthUserAddRequest:
    """Draw a new user. Root always has a password, or nobody could turn auth off again."""
    name = draw(users)
    fields: dict[str, Any] = {"password": draw(passwords)}
    if name != ROOT:
        plain = (fields, {"password": ""}, {"hashedPassword": HASH})
        fields = draw(one_in(3, st.sampled_from(plain), fields))
        if draw(one_in(6, True, False)):
            fields |= {"options": auth_pb2.UserAddOptions(no_password=True)}
    return pb.AuthUserAddRequest(name=name, **fields)


changes = st.one_of(
    st.builds(pb.AuthUserGrantRoleRequest, user=users, role=roles),
    st.builds(pb.AuthUserRevokeRoleRequest, name=users, role=roles),
    st.builds(pb.AuthRoleGrantPermissionRequest, name=roles, perm=permissions),
    st.builds(pb.AuthRoleRevokePermissionRequest, role=roles, key=keys, range_end=ends),
    additions(),
    st.builds(pb.AuthRoleAddRequest, name=roles),
    st.builds(pb.AuthUserDeleteRequest, name=users),
    st.builds(pb.AuthRoleDeleteRequest, role=roles),
    st.builds(pb.AuthUserChangePasswordRequest, name=users, password=passwords),
)
questions = st.one_of(
    st.builds(pb.AuthenticateRequest, name=users, password=passwords),
    st.builds(pb.AuthUserGetRequest, name=users),
    st.builds(pb.AuthRoleGetRequest, role=roles),
    st.builds(pb.AuthUserListRequest),
    st.builds(pb.AuthRoleListRequest),
    st.builds(pb.AuthStatusRequest),
    st.builds(pb.MemberListRequest),
)
switches = st.one_of(st.builds(pb.AuthEnableRequest), st.builds(pb.AuthDisableRequest))
actors = st.sampled_from((ROOT, "alice", "alice", "alice", "bob", "bob", "bob", NOBODY, FORGER))
admins = one_in(5, actors, ROOT)
renewals = one_in(3, False, True)
KINDS = (
    *(6 * [st.builds(Step, actors, requests, renewals)]),
    *(3 * [st.builds(Step, admins, changes, renewals)]),
    *(2 * [st.builds(Step, actors, questions, renewals)]),
    st.builds(Step, admins, one_in(3, switches, pb.AuthStatusRequest()), renewals),
)
steps: st.SearchStrategy[Step] = st.sampled_from(KINDS).flatmap(lambda kind: kind)


def grant(role: str, permission: int, key: bytes, end: bytes) -> pb.AuthRoleGrantPermissionRequest:
    """Let a role read (0), write (1) or both (2)."""
    given: Any = permission
    allowed = auth_pb2.Permission(permType=given, key=key, range_end=end)
    return pb.AuthRoleGrantPermissionRequest(name=role, perm=allowed)


PRELUDE: tuple[Step, ...] = tuple(
    Step(NOBODY, request)
    for request in (
        *KEYS,
        *(pb.AuthUserAddRequest(name=name, password=PASSWORDS[0]) for name in USERS),
        *(pb.AuthRoleAddRequest(name=name) for name in ROLES),
        grant("reader", 0, b"b", b"c"),
        grant("writer", 2, b"a", b"b"),
        grant("writer", 1, b"b", b""),
        pb.AuthUserGrantRoleRequest(user=ROOT, role=ROOT),
        pb.AuthUserGrantRoleRequest(user="alice", role="reader"),
        pb.AuthUserGrantRoleRequest(user="bob", role="writer"),
        pb.AuthEnableRequest(),
    )
)
"""Three users, of whom alice may read some keys and bob may write others."""
