"""The operations of a history that are about users, roles and tokens, and their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from datastore.etcdpb import auth_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support import auth
from tests.support.auth import ROOT, SECRET
from tests.support.client import Client, prefix_end

USER = "worker"
"""The one user but root, and the role that he may have."""
KINDS = {
    "r": auth_pb2.Permission.READ,
    "w": auth_pb2.Permission.WRITE,
    "rw": auth_pb2.Permission.READWRITE,
}
REFUSALS: Mapping[tuple[object, ...], str] = {
    tuple(refusal): refusal.text.removeprefix("etcdserver: ")
    for refusal in (
        auth.NOT_ENABLED,
        auth.FAILED,
        auth.BAD_TOKEN,
        auth.NOBODY,
        auth.DENIED,
        auth.OLD,
        auth.NO_USER,
        auth.USER_EXISTS,
        auth.NO_ROLE,
        auth.ROLE_EXISTS,
        auth.NOT_HELD,
        auth.NOT_GRANTED,
    )
}
"""How the answers that refuse are written in a history. The checker knows when each is right."""
UNKNOWN_WHO = {REFUSALS[auth.BAD_TOKEN], REFUSALS[auth.NOBODY]}
"""After these somebody has to prove who he is."""

Ask = tuple[str, Message, type[Any]]


def _log_in(entry: Mapping[str, Any]) -> Ask:
    name, password = (USER, entry["password"]) if entry.get("user") else (ROOT, SECRET)
    request = pb.AuthenticateRequest(name=name, password=password)
    return "Authenticate", request, pb.AuthenticateResponse


def _permit(entry: Mapping[str, Any]) -> Ask:
    """Let the role do this with a group and no more, or nothing."""
    key = entry["key"].encode()
    end = prefix_end(key)
    if not entry["may"]:
        revoke = pb.AuthRoleRevokePermissionRequest(role=USER, key=key, range_end=end)
        return "RoleRevokePermission", revoke, pb.AuthRoleRevokePermissionResponse
    permission = auth_pb2.Permission(permType=KINDS[entry["may"]], key=key, range_end=end)
    grant = pb.AuthRoleGrantPermissionRequest(name=USER, perm=permission)
    return "RoleGrantPermission", grant, pb.AuthRoleGrantPermissionResponse


def _add_user(entry: Mapping[str, Any]) -> Ask:
    request = pb.AuthUserAddRequest(name=USER, password=entry["password"])
    return "UserAdd", request, pb.AuthUserAddResponse


def _change_password(entry: Mapping[str, Any]) -> Ask:
    request = pb.AuthUserChangePasswordRequest(name=USER, password=entry["password"])
    return "UserChangePassword", request, pb.AuthUserChangePasswordResponse


def _always(method: str, request: Message, answer: type[Any]) -> Callable[[Any], Ask]:
    return lambda entry: (method, request, answer)


AUTH: Mapping[Any, Callable[[Mapping[str, Any]], Ask]] = {
    "log in": _log_in,
    "permit": _permit,
    "add user": _add_user,
    "change password": _change_password,
    "enable": _always("AuthEnable", pb.AuthEnableRequest(), pb.AuthEnableResponse),
    "disable": _always("AuthDisable", pb.AuthDisableRequest(), pb.AuthDisableResponse),
    "delete user": _always(
        "UserDelete", pb.AuthUserDeleteRequest(name=USER), pb.AuthUserDeleteResponse
    ),
    "grant role": _always(
        "UserGrantRole",
        pb.AuthUserGrantRoleRequest(user=USER, role=USER),
        pb.AuthUserGrantRoleResponse,
    ),
    "revoke role": _always(
        "UserRevokeRole",
        pb.AuthUserRevokeRoleRequest(name=USER, role=USER),
        pb.AuthUserRevokeRoleResponse,
    ),
    "add role": _always("RoleAdd", pb.AuthRoleAddRequest(name=USER), pb.AuthRoleAddResponse),
    "delete role": _always(
        "RoleDelete", pb.AuthRoleDeleteRequest(role=USER), pb.AuthRoleDeleteResponse
    ),
    "show user": _always("UserGet", pb.AuthUserGetRequest(name=USER), pb.AuthUserGetResponse),
}
"""What each operation asks the Auth service."""


async def ask_auth(
    client: Client, entry: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, object]:
    """Do what the entry says; whoever logs in shows the token from then on."""
    method, request, kind = AUTH[entry["op"]](entry)
    answer = await client.call(f"Auth/{method}", request, kind, **options)
    told: dict[str, object] = {"revision": answer.header.revision}
    if entry["op"] == "log in":
        client.metadata = (("token", answer.token),)
    if entry["op"] == "show user":
        told["holds"] = USER in answer.roles
    return told
