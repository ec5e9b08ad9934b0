"""The append: one statement that changes nothing unless the head still stands where expected.

The UPDATE of the head is the compare. Everything else in the statement takes its rows from what
the UPDATE returned, so that a loser writes nothing; the loser of a race waits for the winner's
commit and then finds another `change` (log.md A12, H). It never notifies (log.md A10).
"""

from __future__ import annotations

from typing import Any

from datastore.shim.backends.api import Batch, Kinds
from datastore.shim.backends.int64 import to_signed
from datastore.shim.backends.limits import SCHEMA_VERSION
from datastore.shim.backends.postgresql_arrays import byteas, int8s
from datastore.shim.backends.sql_reads import Names

_BESIDE_KEYS = ~int(Kinds.LOG)

_HEAD = """
WITH h AS (UPDATE {head} SET change = change + 1, revision = %s,
    compacted = coalesce(%s::bigint, compacted)
  WHERE id = 1 AND change = %s AND schema_version = %s
    AND (%b::bytea IS NULL OR EXISTS (SELECT 1 FROM {commit} WHERE change = %s AND batch = %b))
  RETURNING change, revision, compacted, pruned, cluster_id, schema_version),
c AS (INSERT INTO {commit} (change, revision, batch, kinds)
  SELECT change, revision, %b, %s::smallint FROM h)"""
_ROWS = """,
l AS (INSERT INTO {log} (id, create_revision, version, lease, key, value)
  SELECT t.* FROM h, unnest(%b, %b, %b, %b, %b, %b) t)"""
# Locks are taken in the order of ids, as keepalives do, or the two could wait for each other.
_DROPPED = """,
o AS (SELECT id FROM {lease} WHERE id = ANY(%b) AND EXISTS (SELECT 1 FROM h)
  ORDER BY id FOR UPDATE),
d AS (DELETE FROM {lease} USING o WHERE {lease}.id = o.id)"""
_GRANTED = """,
g AS (INSERT INTO {lease} (id, ttl, deadline)
  SELECT t.id, t.ttl, clock_timestamp() + t.ttl * interval '1 second'
  FROM h, unnest(%b, %b) t (id, ttl) ORDER BY t.id
  ON CONFLICT (id) DO UPDATE
  SET ttl = excluded.ttl, deadline = excluded.deadline, expired = false)"""
_ALARMS = """,
t AS (SELECT t.* FROM h, unnest(%b, %b) t (member, kind)),
q AS (DELETE FROM {alarm} a USING h
  WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.member = a.member AND t.kind = a.kind)),
r AS (INSERT INTO {alarm} (member, kind) SELECT member, kind FROM t ON CONFLICT DO NOTHING)"""
_AUTH = """,
u AS (SELECT u.* FROM h, unnest(%b, %b, %b) u (kind, name, body)),
v AS (DELETE FROM {auth} a USING h
  WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.kind = a.kind AND u.name = a.name)),
w AS (INSERT INTO {auth} (kind, name, body) SELECT kind, name, body FROM u
  ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body)"""
_FOUND = "\nSELECT change, revision, compacted, pruned, cluster_id, schema_version, 0 FROM h"


class Append:
    """The append's statements in the names of one store."""

    def __init__(self, names: Names) -> None:
        self._head, self._rows, self._dropped, self._granted, self._alarms, self._auth = map(
            names.fill, (_HEAD, _ROWS, _DROPPED, _GRANTED, _ALARMS, _AUTH)
        )

    def build(self, batch: Batch) -> tuple[str, list[Any]]:
        """Return the statement that appends a batch, and its values. Hot."""
        kinds = int(batch.kinds)  # operations on an IntFlag cost microseconds
        parts = [self._head]
        values: list[Any] = [
            batch.revision, batch.compacted, batch.expected, SCHEMA_VERSION,
            batch.base, batch.expected, batch.base, batch.batch, kinds,
        ]  # fmt: skip
        if batch.rows:
            parts.append(self._rows)
            metas, contents = zip(*batch.rows, strict=True)
            ids, create_revisions, versions, leases, keys = zip(*metas, strict=True)
            values += (int8s(ids), int8s(create_revisions), int8s(versions), int8s(leases))
            values += (byteas(keys), byteas(contents))
        if kinds & _BESIDE_KEYS:
            self._add_state(batch, parts, values)
        parts.append(_FOUND)
        return "".join(parts), values

    def _add_state(self, batch: Batch, parts: list[str], values: list[Any]) -> None:
        """Add what a batch changes besides keys."""
        # One statement sees one state: what is dropped and granted again is only replaced.
        granted = dict(batch.granted)
        dropped = [lease for lease in batch.dropped if lease not in granted]
        if dropped:
            parts.append(self._dropped)
            values.append(int8s(dropped))
        if granted:
            parts.append(self._granted)
            values += (int8s(list(granted)), int8s(list(granted.values())))
        if batch.alarms is not None:
            parts.append(self._alarms)
            values.append(int8s([to_signed(alarm.member) for alarm in batch.alarms]))
            values.append(int8s([alarm.kind for alarm in batch.alarms]))
        if batch.auth is not None:
            parts.append(self._auth)
            rows = batch.auth.rows
            values.append(int8s([kind for kind, _ in rows]))
            values.append(byteas([name for _, name in rows]))
            values.append(byteas(list(rows.values())))
