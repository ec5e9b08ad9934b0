"""What a commit of another server changed, from its rows and from what its kinds say to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from datastore.shim.backends.api import (
    SUB_BITS,
    AuthState,
    Commit,
    Corrupt,
    Kinds,
    Lease,
    Row,
    Tail,
    to_revision,
)
from datastore.shim.mvcc.auth import Auth
from datastore.shim.mvcc.auth_rows import decode
from datastore.shim.mvcc.leases import Lessor
from datastore.shim.mvcc.version import Change, Version


def by_commit(tail: Tail) -> Iterator[tuple[Commit, Sequence[Row]]]:
    """Give each commit of a tail the rows up to its revision."""
    start = 0
    for commit in tail.commits:
        end = start
        while end < len(tail.rows) and to_revision(tail.rows[end].meta.id) <= commit.revision:
            end += 1
        yield commit, tail.rows[start:end]
        start = end


def by_revision(changes: Sequence[Change]) -> Iterator[tuple[int, Sequence[Change]]]:
    """Cut changes where the revision changes; one revision is not copied. Hot."""
    if not changes:
        return
    revision, start = changes[0].version.id >> SUB_BITS, 0
    for at, change in enumerate(changes):
        found = change.version.id >> SUB_BITS
        if found != revision:
            yield revision, changes[start:at]
            revision, start = found, at
    yield revision, changes[start:] if start else changes


def to_version(row: Row) -> Version:
    """Return the version that a row holds, with its value encoded."""
    version = Version.from_meta(row.meta)
    if row.value is not None:
        version.framed = version.encode(row.value)
    return version


def reads_beside(tail: Tail) -> bool:
    """Return whether the commits of a tail say to read leases, alarms or auth again."""
    kinds = Kinds.LEASE | Kinds.ALARM | Kinds.AUTH
    return any(commit.kinds & kinds for commit in tail.commits)


def compare_leases(
    known: Lessor, stored: Sequence[Lease]
) -> tuple[Sequence[tuple[int, int]], Sequence[int]]:
    """Return which leases to grant and which to drop so that `known` holds the stored ones.

    What is stored may already be the state of a later commit. That is harmless: what is
    evaluated on it is validated against the head before it is answered. A lease that was revoked
    and granted again meanwhile, as its TTL shows, is dropped and granted.
    """
    ttls = {lease.id: lease.ttl for lease in stored}
    granted = []
    for lease, ttl in ttls.items():
        info = known.find(lease)
        if info is None or info.ttl != ttl:
            granted.append((lease, ttl))
    changed = {lease for lease, _ in granted}
    dropped = [lease for lease in known.ids() if lease not in ttls or lease in changed]
    return granted, dropped


def to_auth(stored: AuthState) -> Auth:
    """Return the auth state that rows hold. Raises Corrupt."""
    try:
        return decode(stored.rows)
    except ValueError as error:
        raise Corrupt(f"users and roles cannot be read: {error}") from error


def compacted_by(commit: Commit, stored: int, known: int) -> int | None:
    """Return the compaction that applies with a commit, given the head's; None: unchanged.

    Not before the commit that compacted, so that who reads the commits before it, in the same
    tail, is told of them first.
    """
    if commit.kinds & Kinds.COMPACT and known < stored <= commit.revision:
        return stored
    return None
