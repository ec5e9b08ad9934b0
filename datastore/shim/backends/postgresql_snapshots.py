"""A warning when old snapshots make every write on PostgreSQL slower (log.md A11).

Each append leaves a dead version of the one row of `head`, and none of them can be removed while
a snapshot is older: a dump, a forgotten ``BEGIN``, a prepared transaction, a replication slot.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from datastore.shim.backends.postgresql_session import Session
from datastore.shim.backends.sql_link import Link
from datastore.shim.backends.sql_reads import Names

log = logging.getLogger(__name__)

OLD_SECONDS: Final = 60.0
"""Age from which a snapshot is worth a warning; also how often is looked."""
MANY_VERSIONS: Final = 20_000
"""Dead versions of `head` that say the same, where the sessions of others cannot be seen."""

# What belongs to other roles' sessions is NULL for users without pg_read_all_stats.
_LOOK: Final = """
SELECT s.n_dead_tup, a.pid, a.usename::text, a.application_name,
  extract(epoch FROM clock_timestamp() - a.xact_start)::float8
FROM (SELECT coalesce(sum(n_dead_tup), 0)::bigint AS n_dead_tup
  FROM pg_stat_all_tables WHERE relid = %s::regclass) s
LEFT JOIN LATERAL (SELECT * FROM pg_stat_activity
  WHERE backend_xmin IS NOT NULL AND datname = current_database() AND pid <> pg_backend_pid()
    AND xact_start < clock_timestamp() - %s * interval '1 second'
  ORDER BY xact_start LIMIT 1) a ON true
"""


class Holder(NamedTuple):
    """Who holds an old snapshot, for how long; pid 0 where that cannot be seen."""

    pid: int
    user: str
    application: str
    seconds: float


def find_holder(link: Link[Session], names: Names, seconds: float) -> Holder | None:
    """Return who has held a snapshot for longer than `seconds`, or None."""
    ((versions, pid, user, application, age),) = link.query(_LOOK, (names.head, seconds))
    if pid is not None:
        return Holder(pid, user or "", application or "", age)
    return Holder(0, "", "", 0.0) if versions >= MANY_VERSIONS else None


class SnapshotWatch:
    """Looks once a minute and warns once a holder."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._next = 0.0
        self._warned: int | None = None

    def look(self, link: Link[Session], now: float) -> None:
        """Look, if it is time; `now` in seconds of any steady clock."""
        if now < self._next:
            return
        self._next = now + OLD_SECONDS
        holder = find_holder(link, self._names, OLD_SECONDS)
        if holder is None:
            self._warned = None
        elif holder.pid != self._warned:
            self._warned = holder.pid
            log.warning("%s", _explain(holder))


def _explain(holder: Holder) -> str:
    what = "a transaction, a prepared transaction or a replication slot"
    if holder.pid:
        of = f", {holder.application}" if holder.application else ""
        what = f"the transaction of process {holder.pid} (user {holder.user}{of})"
        what += f", open for {holder.seconds:.0f} s,"
    return (
        f"{what} holds an old snapshot: writes get slower until it ends. "
        "Dump from a replica, and end sessions that nobody needs"
    )
