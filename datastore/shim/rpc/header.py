"""ResponseHeader as bytes: made once a revision, in front of every answer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from datastore.shim.mvcc.wire import frame, varint

RAFT_TERM: Final = 2
"""What an etcd of one member shows after its first election. There is no raft here."""

_FIELD_1: Final = b"\x0a"
EMPTY: Final = _FIELD_1 + b"\x00"
"""The header of a nested TxnResponse."""


class Headers:
    """Makes the headers of one server, each framed as field 1 of a response."""

    def __init__(self, cluster_id: int, member_id: int) -> None:
        self.cluster_id = cluster_id
        self.member_id = member_id
        self._ids = b"\x08" + varint(cluster_id) + b"\x10" + varint(member_id)
        self._term = b"\x20" + varint(RAFT_TERM)
        self._revision = 0
        self._last = self.without_revision = frame(_FIELD_1, self._ids + self._term)

    def at(self, revision: int) -> bytes:
        """Return the header with this revision. Hot: the last one is kept."""
        if revision != self._revision:
            field = b"\x18" + varint(revision) if revision else b""
            fields = b"%b%b%b" % (self._ids, field, self._term)
            self._last = b"\x0a%c%b" % (len(fields), fields)  # at most 35 bytes
            self._revision = revision
        return self._last


def nested(revision: int) -> bytes:
    """Return the header of an operation's answer inside a TxnResponse: a revision, no more."""
    return frame(_FIELD_1, b"\x18" + varint(revision))


def derive_member_id(cluster_id: int, name: str, urls: Sequence[str] = ()) -> int:
    """Return the id of the server called `name`: stable, not zero, 64 bits.

    Where several servers share a database, two that were given one name still differ in `urls`.
    """
    seed = cluster_id.to_bytes(8, "big", signed=cluster_id < 0) + " ".join((name, *urls)).encode()
    return int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big") or 1
