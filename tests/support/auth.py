"""Users and roles on a server under test, and clients that say who they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import grpc.aio

from datastore.etcdpb import auth_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, Code, Refusal
from tests.support.running import Server

READ, WRITE, READWRITE = 0, 1, 2
EVERYTHING = (READWRITE, b"\0", b"\0")
"""A permission for all keys."""
QUICK = "--bcrypt-cost=4"
"""The cheapest passwords there are, for servers under test."""
ROOT = "root"
SECRET = "secret"

NOT_ENABLED = Refusal(Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
FAILED = Refusal(
    Code.INVALID_ARGUMENT,
    "etcdserver: authentication failed, invalid user ID or password",
)
NO_PASSWORD = Refusal(
    Code.UNKNOWN, "auth: authentication failed, password was given for no password user"
)
BAD_TOKEN = Refusal(Code.UNAUTHENTICATED, "etcdserver: invalid auth token")
OLD = Refusal(Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")
DENIED = Refusal(Code.PERMISSION_DENIED, "etcdserver: permission denied")
NOBODY = Refusal(Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
NO_USER = Refusal(Code.FAILED_PRECONDITION, "etcdserver: user name not found")
USER_EXISTS = Refusal(Code.FAILED_PRECONDITION, "etcdserver: user name already exists")
NO_ROOT = Refusal(Code.FAILED_PRECONDITION, "etcdserver: root user does not exist")
NO_ROOT_ROLE = Refusal(Code.FAILED_PRECONDITION, "etcdserver: root user does not have root role")
EMPTY_ROLE = Refusal(Code.INVALID_ARGUMENT, "etcdserver: role name is empty")
NO_ROLE = Refusal(Code.FAILED_PRECONDITION, "etcdserver: role name not found")
ROLE_EXISTS = Refusal(Code.FAILED_PRECONDITION, "etcdserver: role name already exists")
NOT_HELD = Refusal(Code.FAILED_PRECONDITION, "etcdserver: role is not granted to the user")
NOT_GIVEN = Refusal(Code.INVALID_ARGUMENT, "etcdserver: permission not given")
NOT_GRANTED = Refusal(
    Code.FAILED_PRECONDITION, "etcdserver: permission is not granted to the role"
)
BAD_MANAGEMENT = Refusal(Code.INVALID_ARGUMENT, "etcdserver: invalid auth management")
TOO_LONG = Refusal(Code.UNKNOWN, "bcrypt: password length exceeds 72 bytes")

Range = tuple[int, bytes, bytes]
"""A permission: its type, key and range end."""


class Auth:
    """The Auth service of one connection, a method a call."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def enable(self) -> pb.AuthEnableResponse:
        request = pb.AuthEnableRequest()
        return await self.client.call("Auth/AuthEnable", request, pb.AuthEnableResponse)

    async def disable(self) -> pb.AuthDisableResponse:
        request = pb.AuthDisableRequest()
        return await self.client.call("Auth/AuthDisable", request, pb.AuthDisableResponse)

    async def status(self) -> pb.AuthStatusResponse:
        request = pb.AuthStatusRequest()
        return await self.client.call("Auth/AuthStatus", request, pb.AuthStatusResponse)

    async def revision(self) -> int:
        """Return the auth revision."""
        return (await self.status()).authRevision

    async def login(self, name: str, password: str = SECRET) -> str:
        """Return a token."""
        request = pb.AuthenticateRequest(name=name, password=password)
        answer = await self.client.call("Auth/Authenticate", request, pb.AuthenticateResponse)
        return answer.token

    async def add_user(
        self, name: str, password: str = SECRET, *, no_password: bool = False, hashed: str = ""
    ) -> pb.AuthUserAddResponse:
        options = auth_pb2.UserAddOptions(no_password=no_password)
        request = pb.AuthUserAddRequest(
            name=name, password=password, options=options, hashedPassword=hashed
        )
        return await self.client.call("Auth/UserAdd", request, pb.AuthUserAddResponse)

    async def delete_user(self, name: str) -> pb.AuthUserDeleteResponse:
        request = pb.AuthUserDeleteRequest(name=name)
        return await self.client.call("Auth/UserDelete", request, pb.AuthUserDeleteResponse)

    async def change_password(
        self, name: str, password: str, hashed: str = ""
    ) -> pb.AuthUserChangePasswordResponse:
        request = pb.AuthUserChangePasswordRequest(
            name=name, password=password, hashedPassword=hashed
        )
        answer = pb.AuthUserChangePasswordResponse
        return await self.client.call("Auth/UserChangePassword", request, answer)

    async def roles_of(self, name: str) -> Sequence[str]:
        request = pb.AuthUserGetRequest(name=name)
        return (await self.client.call("Auth/UserGet", request, pb.AuthUserGetResponse)).roles

    async def users(self) -> Sequence[str]:
        request = pb.AuthUserListRequest()
        return (await self.client.call("Auth/UserList", request, pb.AuthUserListResponse)).users

    async def grant_role(self, name: str, role: str) -> pb.AuthUserGrantRoleResponse:
        request = pb.AuthUserGrantRoleRequest(user=name, role=role)
        return await self.client.call("Auth/UserGrantRole", request, pb.AuthUserGrantRoleResponse)

    async def revoke_role(self, name: str, role: str) -> pb.AuthUserRevokeRoleResponse:
        request = pb.AuthUserRevokeRoleRequest(name=name, role=role)
        answer = pb.AuthUserRevokeRoleResponse
        return await self.client.call("Auth/UserRevokeRole", request, answer)

    async def add_role(self, name: str, *ranges: Range) -> pb.AuthRoleAddResponse:
        """Add a role and grant it permissions."""
        request = pb.AuthRoleAddRequest(name=name)
        answer = await self.client.call("Auth/RoleAdd", request, pb.AuthRoleAddResponse)
        for kind, key, end in ranges:
            await self.grant(name, kind, key, end)
        return answer

    async def delete_role(self, name: str) -> pb.AuthRoleDeleteResponse:
        request = pb.AuthRoleDeleteRequest(role=name)
        return await self.client.call("Auth/RoleDelete", request, pb.AuthRoleDeleteResponse)

    async def permissions(self, role: str) -> list[Range]:
        """Return what a role may do."""
        request = pb.AuthRoleGetRequest(role=role)
        answer = await self.client.call("Auth/RoleGet", request, pb.AuthRoleGetResponse)
        return [(perm.permType, perm.key, perm.range_end) for perm in answer.perm]

    async def roles(self) -> Sequence[str]:
        request = pb.AuthRoleListRequest()
        return (await self.client.call("Auth/RoleList", request, pb.AuthRoleListResponse)).roles

    async def grant(
        self, role: str, kind: int, key: bytes, end: bytes = b""
    ) -> pb.AuthRoleGrantPermissionResponse:
        perm = auth_pb2.Permission(key=key, range_end=end)
        perm.permType = kind  # type: ignore[assignment]
        request = pb.AuthRoleGrantPermissionRequest(name=role, perm=perm)
        answer = pb.AuthRoleGrantPermissionResponse
        return await self.client.call("Auth/RoleGrantPermission", request, answer)

    async def revoke(
        self, role: str, key: bytes, end: bytes = b""
    ) -> pb.AuthRoleRevokePermissionResponse:
        request = pb.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=end)
        answer = pb.AuthRoleRevokePermissionResponse
        return await self.client.call("Auth/RoleRevokePermission", request, answer)

    async def user(self, name: str, *ranges: Range) -> None:
        """Add a user with a role of the same name that has these permissions."""
        await self.add_user(name)
        await self.add_role(name, *ranges)
        await self.grant_role(name, name)

    async def enable_with_root(self) -> str:
        """Enable auth, and return a token of root."""
        await self.add_user(ROOT)
        await self.grant_role(ROOT, ROOT)
        await self.enable()
        return await self.login(ROOT)


async def forget_all(server: Server) -> None:
    """Leave a server as a new one is, but for its auth revision."""
    async with Client(server.target) as client:
        auth = Auth(client)
        with suppress(grpc.aio.AioRpcError):
            client.metadata = (("token", await auth.login(ROOT)),)
        await auth.disable()
        client.metadata = ()
        for name in await auth.users():
            await auth.delete_user(name)
        for name in await auth.roles():
            await auth.delete_role(name)
        await client.delete(b"\0", b"\0")
        for lease in await client.leases():
            await client.revoke(lease)


@asynccontextmanager
async def bearing(server: Server, token: str, key: str = "token") -> AsyncIterator[Client]:
    """Connect as whoever a token stands for."""
    async with Client(server.target, metadata=((key, token),)) as client:
        yield client


@asynccontextmanager
async def logged_in(server: Server, name: str, password: str = SECRET) -> AsyncIterator[Client]:
    """Connect as a user."""
    async with Client(server.target) as client:
        client.metadata = (("token", await Auth(client).login(name, password)),)
        yield client
