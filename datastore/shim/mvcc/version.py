"""One version of a key as it is held in memory."""

from __future__ import annotations

from typing import NamedTuple

from datastore.shim.backends.api import SUB_BITS, Meta, RowId
from datastore.shim.mvcc import wire


class Version:
    """A key as one change left it; a tombstone has version 0.

    `framed` is the pre-encoded KeyValue (wire.py) while it is cached, else None; a tombstone's is
    never set. Everything else is immutable.
    """

    __slots__ = ("create_revision", "framed", "id", "key", "lease", "version")

    def __init__(  # noqa: PLR0917 - all six are its identity
        self,
        id: RowId,  # noqa: A002 - the field's name
        key: bytes,
        create_revision: int,
        version: int,
        lease: int,
        framed: bytes | None = None,
    ) -> None:
        self.id = id
        self.key = key
        self.create_revision = create_revision
        self.version = version
        self.lease = lease
        self.framed = framed

    @property
    def mod_revision(self) -> int:
        """The main revision of the change."""
        return self.id >> SUB_BITS

    @property
    def tombstone(self) -> bool:
        """Whether the change deleted the key."""
        return self.version == 0

    @property
    def meta(self) -> Meta:
        """The version as a backend stores it, without its value."""
        return Meta(self.id, self.create_revision, self.version, self.lease, self.key)

    @classmethod
    def from_meta(cls, meta: Meta) -> Version:
        """Return the version of a stored row, its value not cached."""
        return cls(meta.id, meta.key, meta.create_revision, meta.version, meta.lease)

    def encode(self, value: bytes) -> bytes:
        """Return the framed KeyValue with this value, without caching it."""
        return wire.frame_key_value(
            self.key, self.create_revision, self.mod_revision, self.version, value, self.lease
        )

    def __repr__(self) -> str:
        return f"Version({self.key!r} @{self.mod_revision} v{self.version})"


class Change(NamedTuple):
    """A committed change, with what it replaced (None: nothing, or a tombstone)."""

    version: Version
    previous: Version | None
