"""Users, roles and what they may do: one immutable value, and the questions that are put to it.

The rules are those of etcd 3.7.3 (server/auth), its order of checks included: which of two errors
a client sees depends on it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from datastore.shim.errors import AuthOldRevision, PermissionDenied, UserEmpty, UserNotFound
from datastore.shim.mvcc.keyrange import KeyRange

ROOT: Final = "root"
"""Name of the user, and of the role, that may do everything."""


class Identity(NamedTuple):
    """Who calls, as of which auth revision; a revision of 0 means nobody in particular."""

    name: str
    revision: int


ANONYMOUS: Final = Identity("", 0)
SERVER: Final = None
"""Who calls when the server itself does: expired leases, alarms, automatic compaction."""
Caller = Identity | None


class Access(IntEnum):
    """authpb.Permission.Type."""

    READ = 0
    WRITE = 1
    READWRITE = 2


class Permission(NamedTuple):
    """Access to a range of keys; `access` is an int, because etcd keeps unknown ones too."""

    access: int
    key: bytes
    end: bytes

    @property
    def span(self) -> KeyRange:
        """The keys that it is for."""
        return KeyRange.from_wire(self.key, self.end)


@dataclass(frozen=True, slots=True)
class User:
    """A user; `password` is a bcrypt hash, `roles` are sorted."""

    password: bytes = field(default=b"", repr=False)
    roles: Sequence[str] = ()
    no_password: bool = False


class Spans:
    """Keys that several permissions give together, so that a range may lie across them."""

    __slots__ = ("_spans", "_starts")

    def __init__(self, spans: Iterable[KeyRange]) -> None:
        merged: list[KeyRange] = []
        for span in sorted(spans, key=lambda span: span.start):
            if merged and (merged[-1].stop is None or span.start <= merged[-1].stop):
                last = merged.pop()
                stop = None if None in {last.stop, span.stop} else max(last.stop, span.stop)  # type: ignore[type-var]
                merged.append(KeyRange(last.start, stop))
            else:
                merged.append(span)
        self._spans = merged
        self._starts = [span.start for span in merged]

    def cover(self, wanted: KeyRange) -> bool:
        """Whether every key of `wanted` is among these.

        Of a range that holds nothing the start has to be: etcd asks its interval tree.
        """
        at = bisect_right(self._starts, wanted.start) - 1
        if at < 0:
            return False
        found = self._spans[at]
        return found.contains(wanted.start) if wanted.is_empty else found.covers(wanted)


class _Grants(NamedTuple):
    read: Spans
    write: Spans


@dataclass(frozen=True, slots=True)
class Auth:
    """The auth state of a store. `revision` counts its changes, from 1 (etcd's auth revision)."""

    enabled: bool = False
    revision: int = 1
    secret: bytes = field(default=b"", repr=False)
    """What signs simple tokens (shim/auth/simple.py); another one each time auth is enabled."""
    users: Mapping[str, User] = field(default_factory=dict)
    roles: Mapping[str, Sequence[Permission]] = field(default_factory=dict)
    """Permissions of each role, sorted by key."""
    _grants: dict[str, _Grants] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def check_admin(self, who: Identity) -> None:
        """Refuse all but users with the role root. Whether `who` is out of date is not asked.

        Raises:
            UserEmpty, UserNotFound, PermissionDenied: As etcd's IsAdminPermitted.
        """
        if not self.enabled:
            return
        if not who.name:
            raise UserEmpty
        user = self.users.get(who.name)
        if user is None:
            raise UserNotFound
        if ROOT not in user.roles:
            raise PermissionDenied

    def is_admin(self, who: Identity) -> bool:
        """Whether `who` has the role root."""
        user = self.users.get(who.name)
        return user is not None and ROOT in user.roles

    def check_user(self, who: Identity) -> None:
        """Refuse whoever says nothing of who he is (etcd's requireAuthInfo)."""
        if self.enabled and not who.revision:
            raise UserEmpty

    def check_read(self, who: Identity, key: bytes, end: bytes = b"") -> None:
        """Refuse who may not read every key of a range, given as on the wire.

        Raises:
            UserEmpty, AuthOldRevision, PermissionDenied: As etcd's IsRangePermitted.
        """
        self._check(who, key, end, Access.READ)

    def check_write(self, who: Identity, key: bytes, end: bytes = b"") -> None:
        """Refuse who may not change every key of a range, given as on the wire.

        Raises:
            UserEmpty, AuthOldRevision, PermissionDenied: As etcd's IsPutPermitted.
        """
        self._check(who, key, end, Access.WRITE)

    def _check(self, who: Identity, key: bytes, end: bytes, access: Access) -> None:
        if not self.enabled:
            return
        if not who.revision:
            raise UserEmpty
        if who.revision < self.revision:
            raise AuthOldRevision
        user = self.users.get(who.name)
        if user is None:
            raise PermissionDenied
        if ROOT in user.roles:
            return
        grants = self._grants_of(who.name, user)
        spans = grants.read if access is Access.READ else grants.write
        if not spans.cover(KeyRange.from_wire(key, end)):
            raise PermissionDenied

    def _grants_of(self, name: str, user: User) -> _Grants:
        """Return what a user's roles give together, worked out once a user and state."""
        grants = self._grants.get(name)
        if grants is None:
            held = [perm for role in user.roles for perm in self.roles.get(role, ())]
            grants = self._grants[name] = _Grants(
                Spans(p.span for p in held if p.access in {Access.READ, Access.READWRITE}),
                Spans(p.span for p in held if p.access in {Access.WRITE, Access.READWRITE}),
            )
        return grants
