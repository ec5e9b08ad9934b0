"""Everything the shim refuses, each with etcd's exact words (contract 2.12).

    ShimError
    ├── RequestError            the request is at fault
    │   ├── KeyNotProvided, KeyNotFound, ValueProvided, LeaseProvided
    │   ├── TooManyOps, DuplicateKey, InvalidSortOption, RequestTooLarge
    │   ├── Compacted, FutureRevision
    │   ├── LeaseNotFound, LeaseExists, LeaseTtlTooLarge
    │   ├── InvalidAuthToken, AuthOldRevision, PermissionDenied, UserEmpty, AuthFailed, …
    │   └── UserNotFound, RoleNotFound, RoleNotGranted, InvalidAuthManagement, …
    └── StoreError              the store is at fault, now
        ├── NoSpace, TooManyRequests, TimedOut, Stopped, NoLeader, CorruptStore

`rpc/status.py` maps each class to its gRPC code.
"""

from __future__ import annotations

from typing import ClassVar


class ShimError(Exception):
    """Base of all; `text` is what goes over the wire."""

    text: ClassVar[str] = "etcdserver: unknown error"

    def __init__(self, detail: str = "") -> None:
        super().__init__(self.text if not detail else f"{self.text}: {detail}")


class RequestError(ShimError):
    """The request cannot be served as it is."""


class KeyNotProvided(RequestError):
    """A key is empty where one is needed."""

    text = "etcdserver: key is not provided"


class KeyNotFound(RequestError):
    """`ignore_value` or `ignore_lease` on a missing key, or an operation with nothing in it."""

    text = "etcdserver: key not found"


class ValueProvided(RequestError):
    """`ignore_value` beside a value."""

    text = "etcdserver: value is provided"


class LeaseProvided(RequestError):
    """`ignore_lease` beside a lease."""

    text = "etcdserver: lease is provided"


class TooManyOps(RequestError):
    """A transaction above --max-txn-ops."""

    text = "etcdserver: too many operations in txn request"


class DuplicateKey(RequestError):
    """A transaction that changes one key twice."""

    text = "etcdserver: duplicate key given in txn request"


class InvalidSortOption(RequestError):
    """A sort order or target that etcd does not know."""

    text = "etcdserver: invalid sort option"


class RequestTooLarge(RequestError):
    """A write above --max-request-bytes, or more changes in a revision than a row id can tell."""

    text = "etcdserver: request is too large"


class Compacted(RequestError):
    """The revision asked for is below the compacted one."""

    text = "etcdserver: mvcc: required revision has been compacted"

    def __init__(self, revision: int = 0) -> None:
        super().__init__()
        self.revision = revision


class FutureRevision(RequestError):
    """The revision asked for is above the current one."""

    text = "etcdserver: mvcc: required revision is a future revision"


class LeaseNotFound(RequestError):
    """No such lease."""

    text = "etcdserver: requested lease not found"


class LeaseExists(RequestError):
    """A lease with the id asked for exists."""

    text = "etcdserver: lease already exists"


class LeaseTtlTooLarge(RequestError):
    """A TTL above 9,000,000,000 seconds."""

    text = "etcdserver: too large lease TTL"


class AuthNotEnabled(RequestError):
    """There is nothing to authenticate for."""

    text = "etcdserver: authentication is not enabled"


class AuthFailed(RequestError):
    """No such user, or another password."""

    text = "etcdserver: authentication failed, invalid user ID or password"


class NoPasswordUser(RequestError):
    """A password for a user who has none, or a hash that is none; no gRPC error of etcd's."""

    text = "auth: authentication failed, password was given for no password user"


class InvalidAuthToken(RequestError):
    """A token that nobody has issued, or that has expired."""

    text = "etcdserver: invalid auth token"


class AuthOldRevision(RequestError):
    """Users or roles have changed since it was found out who calls."""

    text = "etcdserver: revision of auth store is old"


class PermissionDenied(RequestError):
    """Who calls may not do that."""

    text = "etcdserver: permission denied"


class UserEmpty(RequestError):
    """Nobody says who calls, or a user's name is empty."""

    text = "etcdserver: user name is empty"


class UserNotFound(RequestError):
    """No such user."""

    text = "etcdserver: user name not found"


class UserAlreadyExists(RequestError):
    """A user has that name."""

    text = "etcdserver: user name already exists"


class RootUserNotExist(RequestError):
    """Auth cannot be enabled: nobody could disable it."""

    text = "etcdserver: root user does not exist"


class RootRoleNotExist(RequestError):
    """Auth cannot be enabled: the user root lacks the role root."""

    text = "etcdserver: root user does not have root role"


class RoleEmpty(RequestError):
    """A role's name is empty."""

    text = "etcdserver: role name is empty"


class RoleNotFound(RequestError):
    """No such role."""

    text = "etcdserver: role name not found"


class RoleAlreadyExists(RequestError):
    """A role has that name."""

    text = "etcdserver: role name already exists"


class RoleNotGranted(RequestError):
    """The user does not have the role."""

    text = "etcdserver: role is not granted to the user"


class PermissionNotGiven(RequestError):
    """A permission to grant is missing."""

    text = "etcdserver: permission not given"


class PermissionNotGranted(RequestError):
    """The role does not have exactly that permission."""

    text = "etcdserver: permission is not granted to the role"


class InvalidAuthManagement(RequestError):
    """A change that would lock everybody out, or a range that is none."""

    text = "etcdserver: invalid auth management"


class StoreError(ShimError):
    """The store cannot serve now."""


class NoSpace(StoreError):
    """The quota or the disk is full."""

    text = "etcdserver: mvcc: database space exceeded"


class TooManyRequests(StoreError):
    """The writer's queue is full."""

    text = "etcdserver: too many requests"


class TimedOut(StoreError):
    """No answer from the database in time; a write's outcome is unknown."""

    text = "etcdserver: request timed out"


class Stopped(StoreError):
    """The server is stopping."""

    text = "etcdserver: server stopped"


class NoLeader(StoreError):
    """The database is away: the nearest thing to an etcd without a leader."""

    text = "etcdserver: no leader"


class CorruptStore(StoreError):
    """The log is damaged or is another history than the one applied."""

    text = "etcdserver: corrupt cluster"
