"""The state of one commit, and all rows of the log that are readable in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from datastore.shim.backends.api import Alarm, Row, to_revision
from datastore.shim.errors import CorruptStore
from datastore.shim.mvcc.auth import Auth
from datastore.shim.mvcc.compaction import count_retained, is_retained
from datastore.shim.mvcc.store import Store
from datastore.shim.replica import Replica

PAGE_ROWS = 1000
_LOOKS = 20
"""A server that others give no moment without changes of leases has those of now at last."""


class Overtaken(Exception):
    """Another server pruned what the cut still needed, before it heard of the hold."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One state, while it is held. All but the rows is in memory."""

    change: int
    revision: int
    compacted: int
    rows: int
    """How many rows are readable, but for tombstones exactly at the compacted revision."""
    leases: Sequence[tuple[int, int]]
    """Ids and TTLs, ascending."""
    alarms: Sequence[Alarm]
    auth: Auth
    replica: Replica
    store: Store

    async def read(self, revision: int) -> AsyncIterator[Sequence[Row]]:
        """Give the rows up to `revision`, ascending, in pages that are bounded in bytes.

        Raises:
            Overtaken: begin again with another cut.
            CorruptStore: rows are missing from the log, which must not be served any more.
        """
        index, compacted = self.store.index, self.compacted
        first, found, more = 0, 0, True
        while more:
            page = await self.replica.history(first, revision, PAGE_ROWS)
            if page.pruned > compacted:
                raise Overtaken
            rows = [row for row in page.rows if is_retained(index, row.meta, compacted)]
            found += sum(_counts(row, compacted) for row in rows)
            yield rows
            more = page.more
            if page.rows:
                first = to_revision(page.rows[-1].meta.id) + 1
        if revision == self.revision and found != self.rows:
            reason = f"the log has {found} rows of {self.rows} though nothing pruned the others"
            self.replica.health.fail(reason)
            raise CorruptStore(reason)


def _counts(row: Row, compacted: int) -> bool:
    return row.meta.version > 0 or to_revision(row.meta.id) > compacted


@asynccontextmanager
async def cut(replica: Replica) -> AsyncIterator[Cut]:
    """Take the state after everything committed so far, and hold it.

    Where others commit too, leases, alarms and auth are known to be of that commit once a look at
    the log has brought no change of theirs.

    Raises:
        NoLeader: The database cannot be reached.
    """
    for _ in range(_LOOKS):
        before = replica.read_beside
        await replica.read_index()
        if replica.read_beside == before:
            break
    store = replica.store
    compacted = store.compacted
    with replica.holds.at(compacted):
        yield Cut(
            change=replica.position.change,
            revision=store.revision,
            compacted=compacted,
            rows=count_retained(store.index, compacted),
            leases=sorted((lease, store.leases.ttl(lease)) for lease in store.leases.ids()),
            alarms=store.alarms,
            auth=store.auth,
            replica=replica,
            store=store,
        )
