"""Batches for backends, built without the rest of the shim."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from datastore.shim.backends.api import (
    Appended,
    Backend,
    Batch,
    Head,
    Kinds,
    Meta,
    Moved,
    Row,
    to_row_id,
)


def put(revision: int, sub: int = 0, key: bytes = b"key", value: bytes = b"value") -> Row:
    return Row(Meta(to_row_id(revision, sub), revision, 1, 0, key), value)


def tombstone(revision: int, sub: int = 0, key: bytes = b"key") -> Row:
    return Row(Meta(to_row_id(revision, sub), 0, 0, 0, key), None)


def keys(head: Head, *rows: Row) -> Batch:
    """Return a batch of these rows on top of `head`."""
    revision = max((row.meta.id >> 20 for row in rows), default=head.revision)
    return Batch(secrets.token_bytes(16), head.change, revision, Kinds.LOG, rows)


def empty(head: Head) -> Batch:
    return Batch(secrets.token_bytes(16), head.change, head.revision, Kinds.NONE)


def grant(head: Head, *leases: tuple[int, int]) -> Batch:
    return empty(head)._replace(kinds=Kinds.LEASE, granted=leases)


def revoke(head: Head, *leases: int) -> Batch:
    return empty(head)._replace(kinds=Kinds.LEASE, dropped=leases)


def compact(head: Head, revision: int) -> Batch:
    return empty(head)._replace(kinds=Kinds.COMPACT, compacted=revision)


def commit(backend: Backend, batch: Batch) -> Head:
    """Append and make durable; the batch must fit."""
    outcome = backend.append(batch)
    assert isinstance(outcome, Appended), outcome
    if outcome.sync is not None:
        outcome.sync()
    return outcome.head


def moved(backend: Backend, batch: Batch) -> Head:
    """Append a batch that must not fit."""
    outcome = backend.append(batch)
    assert isinstance(outcome, Moved), outcome
    return outcome.head


def fill(backend: Backend, revisions: Sequence[Sequence[bytes]]) -> Head:
    """Commit each sequence of keys as one revision, whose values are the keys."""
    head = backend.head()
    for names in revisions:
        revision = head.revision + 1
        rows = [put(revision, sub, name, name) for sub, name in enumerate(names)]
        head = commit(backend, keys(head, *rows))
    return head
