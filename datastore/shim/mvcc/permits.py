"""Whether somebody may do what he asks for, operation by operation (etcd: apply/auth.go)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from datastore.shim.mvcc.auth import Auth, Identity
from datastore.shim.mvcc.auth_ops import AuthWrite
from datastore.shim.mvcc.ops import DeleteRange, LeaseRevoke, Op, Put, Range, Txn, Write


class Attachments(Protocol):
    """Which keys hang on a lease now."""

    def attached(self, lease: int) -> Iterable[bytes]:
        """Return the keys of a lease; none where there is no such lease."""


def check_write(auth: Auth, who: Identity, write: Write, leases: Attachments) -> None:
    """Refuse a write that `who` may not make.

    Leases that are granted, compactions and alarms are checked before they are queued, as in
    etcd: here they pass.

    Raises:
        UserEmpty, AuthOldRevision, UserNotFound, PermissionDenied: etcd's error for the case.
    """
    if isinstance(write, Put | DeleteRange | Txn):
        check_op(auth, who, write, leases)
    elif isinstance(write, LeaseRevoke):
        check_lease(auth, who, leases.attached(write.id))
    elif isinstance(write, AuthWrite):
        auth.check_admin(who)


def check_op(auth: Auth, who: Identity, op: Op, leases: Attachments) -> None:
    """Refuse an operation; of a transaction both branches count, and what is nested in them."""
    match op:
        case Range():
            auth.check_read(who, op.key, op.end)
        case Put():
            auth.check_write(who, op.key)
            if op.lease:
                # Who could not revoke the lease must not tie more keys to it.
                check_lease(auth, who, leases.attached(op.lease))
            if op.prev_kv:
                auth.check_read(who, op.key)
        case DeleteRange():
            auth.check_write(who, op.key, op.end)
            if op.prev_kv:
                auth.check_read(who, op.key, op.end)
        case Txn():
            for compare in op.compares:
                auth.check_read(who, compare.key, compare.end)
            _check_all(auth, who, op.success, leases)
            _check_all(auth, who, op.failure, leases)


def _check_all(auth: Auth, who: Identity, ops: Sequence[Op], leases: Attachments) -> None:
    for op in ops:
        check_op(auth, who, op, leases)


def check_lease(auth: Auth, who: Identity, keys: Iterable[bytes]) -> None:
    """Refuse who may not write every key of a lease; root is not asked for his revision."""
    if not auth.is_admin(who):
        for key in keys:
            auth.check_write(who, key)


def check_lease_read(auth: Auth, who: Identity, keys: Iterable[bytes]) -> None:
    """Refuse who may not read every key of a lease."""
    if not auth.is_admin(who):
        for key in keys:
            auth.check_read(who, key)
