"""What each change of the auth state does: a state and a request in, the next state out.

A state that is returned as it was has nothing to append. Rules and order of checks: etcd 3.7.3,
server/auth/store.go.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeVar, assert_never

from datastore.shim.errors import (
    InvalidAuthManagement,
    NoPasswordUser,
    PermissionNotGiven,
    PermissionNotGranted,
    RequestTooLarge,
    RoleAlreadyExists,
    RoleEmpty,
    RoleNotFound,
    RoleNotGranted,
    RootRoleNotExist,
    RootUserNotExist,
    UserAlreadyExists,
    UserEmpty,
    UserNotFound,
)
from datastore.shim.mvcc.auth import ROOT, Auth, Permission, User
from datastore.shim.mvcc.auth_ops import (
    AuthDisable,
    AuthEnable,
    AuthWrite,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
    UserRevokeRole,
)
from datastore.shim.mvcc.keyrange import FROM_KEY

T = TypeVar("T")
MOST_NAME_BYTES: Final = 700
"""What every database takes as a part of a primary key."""


def change(auth: Auth, write: AuthWrite) -> Auth:  # noqa: C901, PLR0911 - a table
    """Return the state after a change.

    Raises:
        RequestError: etcd's error for the case.
    """
    match write:
        case AuthEnable():
            return _enable(auth, write)
        case AuthDisable():
            return _next(auth, enabled=False, secret=b"") if auth.enabled else auth
        case UserAdd():
            return _add_user(auth, write)
        case UserDelete():
            return _delete_user(auth, write)
        case UserChangePassword():
            return _change_password(auth, write)
        case UserGrantRole():
            return _grant_role(auth, write)
        case UserRevokeRole():
            return _revoke_role(auth, write)
        case RoleAdd():
            return _add_role(auth, write)
        case RoleDelete():
            return _delete_role(auth, write)
        case RoleGrantPermission():
            return _grant_permission(auth, write)
        case RoleRevokePermission():
            return _revoke_permission(auth, write)
    assert_never(write)


def _enable(auth: Auth, write: AuthEnable) -> Auth:
    if auth.enabled:
        return auth
    if ROOT not in auth.users:
        raise RootUserNotExist
    if ROOT not in auth.users[ROOT].roles:
        raise RootRoleNotExist
    # The one change that the auth revision does not count (etcd).
    return replace(auth, enabled=True, secret=write.secret)


def _add_user(auth: Auth, write: UserAdd) -> Auth:
    if not write.name:
        raise UserEmpty
    _check_length(write.name)
    if write.name in auth.users:
        raise UserAlreadyExists
    return _with_user(auth, write.name, User(write.password, (), write.no_password))


def _delete_user(auth: Auth, write: UserDelete) -> Auth:
    if auth.enabled and write.name == ROOT:
        raise InvalidAuthManagement
    _find_user(auth, write.name)
    return _next(auth, users=_without(auth.users, write.name))


def _change_password(auth: Auth, write: UserChangePassword) -> Auth:
    user = _find_user(auth, write.name)
    if user.no_password:
        return _with_user(auth, write.name, replace(user, password=b""))
    if write.password is None:
        raise NoPasswordUser
    return _with_user(auth, write.name, replace(user, password=write.password))


def _grant_role(auth: Auth, write: UserGrantRole) -> Auth:
    user = _find_user(auth, write.name)
    if write.role != ROOT and write.role not in auth.roles:
        raise RoleNotFound
    if write.role in user.roles:
        return auth
    return _with_user(
        auth, write.name, replace(user, roles=tuple(sorted((*user.roles, write.role))))
    )


def _revoke_role(auth: Auth, write: UserRevokeRole) -> Auth:
    if auth.enabled and write.name == ROOT and write.role == ROOT:
        raise InvalidAuthManagement
    user = _find_user(auth, write.name)
    if write.role not in user.roles:
        raise RoleNotGranted
    return _with_user(auth, write.name, _without_role(user, write.role))


def _add_role(auth: Auth, write: RoleAdd) -> Auth:
    if not write.name:
        raise RoleEmpty
    _check_length(write.name)
    if write.name in auth.roles:
        raise RoleAlreadyExists
    return _with_role(auth, write.name, ())


def _delete_role(auth: Auth, write: RoleDelete) -> Auth:
    if auth.enabled and write.name == ROOT:
        raise InvalidAuthManagement
    _find_role(auth, write.name)
    users = {name: _without_role(user, write.name) for name, user in auth.users.items()}
    return _next(auth, users=users, roles=_without(auth.roles, write.name))


def _grant_permission(auth: Auth, write: RoleGrantPermission) -> Auth:
    wanted = write.permission
    if wanted is None:
        raise PermissionNotGiven
    if not wanted.key or (wanted.end and wanted.end != FROM_KEY and wanted.end <= wanted.key):
        raise InvalidAuthManagement
    held = list(_find_role(auth, write.name))
    at = bisect_left(held, wanted.key, key=lambda permission: permission.key)
    # Of several ranges from one key etcd finds the first only, and grants the others twice.
    if at < len(held) and (held[at].key, held[at].end) == (wanted.key, wanted.end):
        held[at] = wanted
    else:
        held.append(wanted)
        held.sort(key=lambda permission: permission.key)
    return _with_role(auth, write.name, tuple(held))


def _revoke_permission(auth: Auth, write: RoleRevokePermission) -> Auth:
    held = _find_role(auth, write.name)
    kept = tuple(p for p in held if (p.key, p.end) != (write.key, write.end))
    if len(kept) == len(held):
        raise PermissionNotGranted
    return _with_role(auth, write.name, kept)


def _check_length(name: str) -> None:
    if len(name.encode()) > MOST_NAME_BYTES:
        raise RequestTooLarge


def _find_user(auth: Auth, name: str) -> User:
    if name not in auth.users:
        raise UserNotFound
    return auth.users[name]


def _find_role(auth: Auth, name: str) -> tuple[Permission, ...]:
    if name not in auth.roles:
        raise RoleNotFound
    return tuple(auth.roles[name])


def _without_role(user: User, role: str) -> User:
    return replace(user, roles=tuple(held for held in user.roles if held != role))


def _with_user(auth: Auth, name: str, user: User) -> Auth:
    return _next(auth, users={**auth.users, name: user})


def _with_role(auth: Auth, name: str, permissions: tuple[Permission, ...]) -> Auth:
    return _next(auth, roles={**auth.roles, name: permissions})


def _without(mapping: Mapping[str, T], name: str) -> dict[str, T]:
    return {key: value for key, value in mapping.items() if key != name}


def _next(auth: Auth, **changed: object) -> Auth:
    return replace(auth, revision=auth.revision + 1, **changed)  # type: ignore[arg-type]
