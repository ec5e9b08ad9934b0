"""How long a backend keeps what only other servers and lost replies need."""

from __future__ import annotations

SCHEMA_VERSION = 1
"""The tables of schema.py; compared in every append, so that an older server stops."""

COMMITS_KEPT = 10_000
"""Commit rows that always stay: they decide the fate of batches whose reply was lost."""

COMMIT_SECONDS = 3600.0
"""Age under which a commit row stays; no statement of a dead client may live longer."""

MEMBER_SECONDS = 10.0
"""A server whose heartbeat is older is gone."""

FIRST_REVISION = 1
"""The revision of an empty store, as in etcd."""

NO_BATCH = bytes(16)
"""Batch id of commit 0, which is the empty store."""
