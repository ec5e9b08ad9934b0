"""Changes of the auth state, as values: etcd's messages that only root may send.

Those that hold a secret are dataclasses, whose text can leave it out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from datastore.shim.mvcc.auth import Permission


@dataclass(frozen=True, slots=True)
class AuthEnable:
    """AuthEnableRequest; `secret` signs simple tokens from now on."""

    secret: bytes = field(repr=False)


class AuthDisable(NamedTuple):
    """AuthDisableRequest."""


@dataclass(frozen=True, slots=True)
class UserAdd:
    """AuthUserAddRequest; `password` is hashed already."""

    name: str
    password: bytes = field(default=b"", repr=False)
    no_password: bool = False


class UserDelete(NamedTuple):
    """AuthUserDeleteRequest."""

    name: str


@dataclass(frozen=True, slots=True)
class UserChangePassword:
    """AuthUserChangePasswordRequest; `password` is hashed, None: what came is no hash."""

    name: str
    password: bytes | None = field(repr=False)


class UserGrantRole(NamedTuple):
    """AuthUserGrantRoleRequest."""

    name: str
    role: str


class UserRevokeRole(NamedTuple):
    """AuthUserRevokeRoleRequest."""

    name: str
    role: str


class RoleAdd(NamedTuple):
    """AuthRoleAddRequest."""

    name: str


class RoleDelete(NamedTuple):
    """AuthRoleDeleteRequest."""

    name: str


class RoleGrantPermission(NamedTuple):
    """AuthRoleGrantPermissionRequest."""

    name: str
    permission: Permission | None


class RoleRevokePermission(NamedTuple):
    """AuthRoleRevokePermissionRequest."""

    name: str
    key: bytes
    end: bytes


AuthWrite = (
    AuthEnable
    | AuthDisable
    | UserAdd
    | UserDelete
    | UserChangePassword
    | UserGrantRole
    | UserRevokeRole
    | RoleAdd
    | RoleDelete
    | RoleGrantPermission
    | RoleRevokePermission
)
