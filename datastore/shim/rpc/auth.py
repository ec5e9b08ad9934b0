"""etcdserverpb.Auth: who there is, what they may do, and tokens for who proves who he is."""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from google.protobuf.message import Message

from datastore.etcdpb import auth_pb2
from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.auth.passwords import Passwords
from datastore.shim.auth.tokens import Tokens
from datastore.shim.errors import (
    AuthFailed,
    AuthNotEnabled,
    NoPasswordUser,
    RoleNotFound,
    UserNotFound,
)
from datastore.shim.mvcc import auth_ops as ops
from datastore.shim.mvcc.auth import ROOT, Access, Auth, Identity, Permission
from datastore.shim.replica import Replica
from datastore.shim.rpc.kv import REQUEST_SECONDS
from datastore.shim.rpc.service import Desk
from datastore.shim.transport.api import Call
from datastore.shim.writer import Writer

SECRET_BYTES: Final = 32
_PATH: Final = "/etcdserverpb.Auth/"
_EVERYTHING: Final = Permission(Access.READWRITE, b"", b"\x00")
"""What etcd shows as the permission of the role root, whatever it was granted."""

Change = Callable[[bytes], "ops.AuthWrite | Awaitable[ops.AuthWrite]"]


class AuthService:
    """All of Auth. Questions are answered from the latest state, as etcd asks its log."""

    def __init__(
        self,
        desk: Desk,
        replica: Replica,
        writer: Writer,
        tokens: Tokens,
        passwords: Passwords,
    ) -> None:
        self._headers = desk.headers
        self._guard = desk.guard
        self._replica = replica
        self._writer = writer
        self._tokens = tokens
        self._passwords = passwords
        self._now = asyncio.get_running_loop().time
        changes: Mapping[str, Change] = {
            "AuthEnable": _to_enable,
            "AuthDisable": _to_disable,
            "UserAdd": self._to_user_add,
            "UserDelete": _to_user_delete,
            "UserChangePassword": self._to_change_password,
            "UserGrantRole": _to_user_grant_role,
            "UserRevokeRole": _to_user_revoke_role,
            "RoleAdd": _to_role_add,
            "RoleDelete": _to_role_delete,
            "RoleGrantPermission": _to_grant_permission,
            "RoleRevokePermission": _to_revoke_permission,
        }
        for name, decode in changes.items():
            desk.unary(_PATH + name, self._changing(decode))
        desk.unary(_PATH + "AuthStatus", self.status)
        desk.unary(_PATH + "Authenticate", self.authenticate)
        desk.unary(_PATH + "UserGet", self.user_get)
        desk.unary(_PATH + "UserList", self.user_list)
        desk.unary(_PATH + "RoleGet", self.role_get)
        desk.unary(_PATH + "RoleList", self.role_list)

    def _changing(self, decode: Change) -> Callable[[Call, bytes], Awaitable[bytes]]:
        """Return the handler of a change: its answer is a header, whatever it changes."""

        async def serve(call: Call, body: bytes) -> bytes:
            decoded = decode(body)
            write = await decoded if isinstance(decoded, Awaitable) else decoded
            # Nobody asks later as of which state the caller was root.
            await self._replica.read_index()
            deadline = self._now() + REQUEST_SECONDS
            result = await self._guard.act(
                call, lambda caller: self._writer.write(write, caller, len(body), deadline)
            )
            return self._headers.at(result.revision)

        return serve

    async def _to_user_add(self, body: bytes) -> ops.AuthWrite:
        request = pb.AuthUserAddRequest.FromString(body)
        if request.options.no_password:
            return ops.UserAdd(request.name, no_password=True)
        # As etcd: a hash that the client sends is not used.
        return ops.UserAdd(request.name, await self._passwords.hash(request.password))

    async def _to_change_password(self, body: bytes) -> ops.AuthWrite:
        request = pb.AuthUserChangePasswordRequest.FromString(body)
        if request.password:
            hashed: bytes | None = await self._passwords.hash(request.password)
        else:
            hashed = _from_base64(request.hashedPassword)
        return ops.UserChangePassword(request.name, hashed)

    async def status(self, call: Call, body: bytes) -> bytes:
        """Tell whether auth is on; anybody may know."""
        _, auth = await self._asked(call)
        return self._answer(
            pb.AuthStatusResponse(enabled=auth.enabled, authRevision=auth.revision)
        )

    async def authenticate(self, call: Call, body: bytes) -> bytes:
        """Give a token for a password.

        While it was compared users may have changed: then it is compared again.
        """
        request = pb.AuthenticateRequest.FromString(body)
        while True:
            checked = await self._latest()
            await self._check_password(checked, request.name, request.password)
            auth = await self._latest()
            if auth.enabled and auth.revision == checked.revision:
                token = self._tokens.issue(auth, request.name, self._replica.position.change)
                return self._answer(pb.AuthenticateResponse(token=token))

    async def _check_password(self, auth: Auth, name: str, password: str) -> None:
        if not auth.enabled:
            raise AuthNotEnabled
        user = auth.users.get(name)
        if user is None:
            raise AuthFailed
        if user.no_password:
            raise NoPasswordUser
        if not await self._passwords.matches(password, user.password):
            raise AuthFailed

    async def user_get(self, call: Call, body: bytes) -> bytes:
        """List the roles of a user: of others only for root."""
        name = pb.AuthUserGetRequest.FromString(body).name
        who, auth = await self._asked(call)
        if name != who.name:
            auth.check_admin(who)
        if name not in auth.users:
            raise UserNotFound
        return self._answer(pb.AuthUserGetResponse(roles=auth.users[name].roles))

    async def user_list(self, call: Call, body: bytes) -> bytes:
        """List the users."""
        auth = await self._latest_for_admin(call)
        return self._answer(pb.AuthUserListResponse(users=sorted(auth.users)))

    async def role_get(self, call: Call, body: bytes) -> bytes:
        """List the permissions of a role: of one that the caller has not, only for root."""
        name = pb.AuthRoleGetRequest.FromString(body).role
        who, auth = await self._asked(call)
        user = auth.users.get(who.name)
        if user is None or name not in user.roles:
            auth.check_admin(who)
        if name not in auth.roles:
            raise RoleNotFound
        held = (_EVERYTHING,) if name == ROOT else auth.roles[name]
        return self._answer(pb.AuthRoleGetResponse(perm=map(_from_permission, held)))

    async def role_list(self, call: Call, body: bytes) -> bytes:
        """List the roles."""
        auth = await self._latest_for_admin(call)
        return self._answer(pb.AuthRoleListResponse(roles=sorted(auth.roles)))

    async def _latest(self) -> Auth:
        await self._replica.read_index()
        return self._replica.store.auth

    async def _asked(self, call: Call) -> tuple[Identity, Auth]:
        """Return who calls, and the latest state, which says so."""
        await self._replica.read_index()
        who = await self._guard.identify(call)
        return who, self._replica.store.auth

    async def _latest_for_admin(self, call: Call) -> Auth:
        who, auth = await self._asked(call)
        auth.check_admin(who)
        return auth

    def _answer(self, message: Message) -> bytes:
        return self._headers.at(self._replica.store.revision) + message.SerializeToString()


def _to_enable(body: bytes) -> ops.AuthWrite:
    pb.AuthEnableRequest.FromString(body)
    return ops.AuthEnable(secrets.token_bytes(SECRET_BYTES))


def _to_disable(body: bytes) -> ops.AuthWrite:
    pb.AuthDisableRequest.FromString(body)
    return ops.AuthDisable()


def _to_user_delete(body: bytes) -> ops.AuthWrite:
    return ops.UserDelete(pb.AuthUserDeleteRequest.FromString(body).name)


def _to_user_grant_role(body: bytes) -> ops.AuthWrite:
    request = pb.AuthUserGrantRoleRequest.FromString(body)
    return ops.UserGrantRole(request.user, request.role)


def _to_user_revoke_role(body: bytes) -> ops.AuthWrite:
    request = pb.AuthUserRevokeRoleRequest.FromString(body)
    return ops.UserRevokeRole(request.name, request.role)


def _to_role_add(body: bytes) -> ops.AuthWrite:
    return ops.RoleAdd(pb.AuthRoleAddRequest.FromString(body).name)


def _to_role_delete(body: bytes) -> ops.AuthWrite:
    return ops.RoleDelete(pb.AuthRoleDeleteRequest.FromString(body).role)


def _to_grant_permission(body: bytes) -> ops.AuthWrite:
    request = pb.AuthRoleGrantPermissionRequest.FromString(body)
    perm = request.perm
    permission = Permission(perm.permType, perm.key, perm.range_end)
    return ops.RoleGrantPermission(request.name, permission if request.HasField("perm") else None)


def _to_revoke_permission(body: bytes) -> ops.AuthWrite:
    request = pb.AuthRoleRevokePermissionRequest.FromString(body)
    return ops.RoleRevokePermission(request.role, request.key, request.range_end)


def _from_permission(permission: Permission) -> auth_pb2.Permission:
    answer = auth_pb2.Permission(key=permission.key, range_end=permission.end)
    answer.permType = permission.access  # type: ignore[assignment]  # unknown ones are kept
    return answer


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        return None
