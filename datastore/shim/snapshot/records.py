"""What etcd 3.7 keeps in each bucket of its database (etcd: server/storage/schema).

    key               revision -> KeyValue, a tombstone's with the key alone
    lease             id -> Lease          alarm             AlarmMember -> nothing
    auth              the switch and the revision
    authUsers         name -> User         authRoles         name -> Role
    meta              where compaction and raft stand, and the schema's version
    cluster           the cluster's version
    members           id -> JSON           members_removed   empty

Numbers in keys are big endian, so that their order is that of the bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from datastore.shim.backends.api import SUB_BITS, Alarm, Member, Row
from datastore.shim.mvcc import auth_rows
from datastore.shim.mvcc.auth import Auth
from datastore.shim.mvcc.wire import frame, frame_key_value, unframe, varint

Record = tuple[bytes, bytes]

_REVISION = struct.Struct(">QcQ")
_NUMBER = struct.Struct(">Q")
_SUB_MASK = (1 << SUB_BITS) - 1
_UINT64 = (1 << 64) - 1


class Standing(NamedTuple):
    """Where a cluster stands, beside its keys."""

    change: int
    term: int
    compacted: int
    storage_version: str
    members: Sequence[Member]


def row_record(row: Row) -> Record:
    """Return a row of the log as etcd stores it. Hot."""
    (row_id, created, version, lease, key), value = row
    revision = row_id >> SUB_BITS
    bucket_key = _REVISION.pack(revision, b"_", row_id & _SUB_MASK)
    if value is None:
        return bucket_key + b"t", frame(b"\x0a", key)
    return bucket_key, unframe(frame_key_value(key, created, revision, version, value, lease))


def lease_records(leases: Sequence[tuple[int, int]]) -> Iterator[Record]:
    """Give leases; the TTLs are those granted, for a restart begins them anew."""
    for lease, ttl in sorted(leases, key=lambda each: each[0] & _UINT64):
        key = _NUMBER.pack(lease & _UINT64)
        yield key, b"\x08" + varint(lease) + b"\x10" + varint(ttl)


def alarm_records(alarms: Sequence[Alarm]) -> Iterator[Record]:
    """Give the active alarms, which are keys without values."""
    keys = (b"\x08" + varint(alarm.member) + b"\x10" + varint(alarm.kind) for alarm in alarms)
    for key in sorted(keys):
        yield key, b""


def auth_records(auth: Auth) -> Iterator[Record]:
    """Give the switch, which etcd leaves out until it is on, and the revision of auth changes."""
    if auth.enabled:
        yield b"authEnabled", b"\x01"
    yield b"authRevision", _NUMBER.pack(auth.revision)


def user_records(auth: Auth) -> Iterator[Record]:
    """Give the users; their passwords are hashes."""
    yield from _auth_rows(auth, auth_rows.USER)


def role_records(auth: Auth) -> Iterator[Record]:
    """Give the roles."""
    yield from _auth_rows(auth, auth_rows.ROLE)


def _auth_rows(auth: Auth, wanted: int) -> Iterator[Record]:
    for (kind, name), body in sorted(auth_rows.encode(auth).items()):
        if kind == wanted:
            yield name, body


def meta_records(standing: Standing) -> Iterator[Record]:
    """Give where raft, compaction and the schema stand."""
    voters = sorted(member.id for member in standing.members)
    yield b"confState", _json({"voters": voters, "auto_leave": False})
    yield b"consistent_index", _NUMBER.pack(standing.change)
    if standing.compacted >= 0:
        compacted = _REVISION.pack(standing.compacted, b"_", 0)
        yield b"finishedCompactRev", compacted
        yield b"scheduledCompactRev", compacted
    yield b"storageVersion", standing.storage_version.encode()
    yield b"term", _NUMBER.pack(standing.term)


def cluster_records(standing: Standing) -> Iterator[Record]:
    """Give the cluster's version."""
    yield b"clusterVersion", standing.storage_version.encode()


def member_records(standing: Standing) -> Iterator[Record]:
    """Give the servers; `etcdutl snapshot restore` replaces them by those of the new cluster."""
    for key, member in sorted((f"{member.id:x}".encode(), member) for member in standing.members):
        description = {
            "id": member.id,
            "peerURLs": [],
            "name": member.name,
            "clientURLs": list(member.client_urls),
        }
        yield key, _json(description)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
