"""Reads: linearizable where asked, from the index, values from the cache or by primary key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from datastore.shim.backends.api import RowId
from datastore.shim.errors import AuthOldRevision, Compacted
from datastore.shim.mvcc.auth import SERVER, Identity
from datastore.shim.mvcc.ops import Range, RangeResult, Txn, TxnResult
from datastore.shim.mvcc.permits import check_op
from datastore.shim.mvcc.store import MissingValues, Selection
from datastore.shim.replica import Replica

FIRST_CHUNK_KEYS = 10
"""A RangeStream starts small and grows towards the size of a request (contract 2.3)."""


Identify = Callable[[], Awaitable[Identity]] | None
"""Finds out who calls, where auth is on; None: the server itself does."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a streamed range; all but `kvs` means something on the last one only."""

    kvs: Sequence[bytes]
    last: bool
    count: int
    more: bool
    revision: int


class Reader:
    """Answers reads from this server's copy.

    Who calls is found out, and what he may read checked, after the look at the log that a
    linearizable read begins with. A change of users or roles meanwhile refuses the read: etcd
    (doSerialize).
    """

    def __init__(self, replica: Replica, *, chunk_bytes: int = 3 << 19) -> None:
        self._replica = replica
        self._chunk_bytes = chunk_bytes

    def try_range(self, op: Range) -> RangeResult | None:
        """Answer at once, where no waiting is needed: nobody else writes, all is cached. Hot.

        For callers who need no permission: auth is off.
        """
        if self._replica.shared and not op.serializable:
            return None
        store = self._replica.store
        try:
            return store.render(op, store.select(op))
        except MissingValues:
            return None

    async def range(self, op: Range, identify: Identify) -> RangeResult:
        """Answer a range. Raises what `stream` raises, and FutureRevision, NoLeader."""
        await self._index(serializable=op.serializable)
        caller = await self._admit(op, identify)
        while True:
            try:
                result = await self._render(op, await self._select(op))
            except Compacted:
                # Pruning took a value between the look at the index and the fetch. Where another
                # server pruned, the index lags.
                if op.revision > 0:
                    raise
                await self._replica.read_index()
            else:
                self._confirm(caller)
                return result

    async def txn(self, op: Txn, identify: Identify) -> TxnResult:
        """Answer a transaction that writes nothing, on one state of the index."""
        await self._index(serializable=_is_serializable(op))
        caller = await self._admit(op, identify)
        values: dict[RowId, bytes] = {}
        while True:
            try:
                result = self._replica.store.read(op, values)
            except MissingValues as missing:
                values.update(await self._fetch(missing.ids))
            else:
                assert isinstance(result, TxnResult)
                self._confirm(caller)
                return result

    async def stream(self, op: Range, identify: Identify) -> AsyncIterator[Chunk]:
        """Give a range in chunks, all of the state at the start.

        Raises:
            Compacted: A compaction overtook the revision that the stream is pinned to.
            PermissionDenied, …: The caller may not read that, or may not any more.
        """
        await self._index(serializable=op.serializable)
        caller = await self._admit(op, identify)
        store = self._replica.store
        selection = await self._select(op)
        pinned = op.revision if op.revision > 0 else selection.revision
        left = len(selection.versions)
        async for kvs in self._chunks(op, selection):
            if self._replica.store.compacted > pinned or self._replica.store is not store:
                raise Compacted(self._replica.store.compacted)
            left -= len(kvs)
            yield Chunk(kvs, not left, selection.count, selection.more, selection.revision)
        self._confirm(caller)

    async def _chunks(self, op: Range, selection: Selection) -> AsyncIterator[Sequence[bytes]]:
        """Encode a selection in chunks of about a request's size: the first one always comes."""
        versions = selection.versions
        start, keys = 0, FIRST_CHUNK_KEYS
        while True:
            part = selection._replace(versions=versions[start : start + keys])
            kvs = (await self._encode(op, part)).kvs
            yield kvs
            start += len(kvs)
            if start >= len(versions):
                return
            keys = self._resize(len(kvs), sum(map(len, kvs)))

    def _resize(self, keys: int, size: int) -> int:
        if size < self._chunk_bytes // 2:
            return keys * 2
        if size > self._chunk_bytes * 2:
            return max(1, keys // 2)
        return keys

    async def _admit(self, op: Range | Txn, identify: Identify) -> Identity | None:
        """Return who calls, where auth is on and he may read that."""
        if identify is None or not self._replica.store.auth.enabled:
            return SERVER
        caller = await identify()
        store = self._replica.store
        check_op(store.auth, caller, op, store.leases)
        return caller

    def _confirm(self, caller: Identity | None) -> None:
        """Refuse what was read for a caller that may have lost his permission meanwhile."""
        if caller is not None and caller.revision not in {0, self._replica.store.auth.revision}:
            raise AuthOldRevision

    async def _index(self, *, serializable: bool) -> None:
        if not serializable:
            await self._replica.read_index()

    async def _select(self, op: Range) -> Selection:
        values: dict[RowId, bytes] = {}
        while True:
            try:
                return self._replica.store.select(op, values)
            except MissingValues as missing:
                values.update(await self._fetch(missing.ids))

    async def _render(self, op: Range, selection: Selection) -> RangeResult:
        """Encode one selection; where values have to be fetched, others have turns meanwhile."""
        try:
            return self._replica.store.render(op, selection)
        except MissingValues:
            pass
        kvs: list[bytes] = []
        async for chunk in self._chunks(op, selection):
            kvs += chunk
        return RangeResult(kvs, selection.count, selection.more, selection.revision)

    async def _encode(self, op: Range, selection: Selection) -> RangeResult:
        """Encode a selection, as far as values fit a page, but at least one.

        What is fetched meanwhile belongs to it, whatever is written.
        """
        store = self._replica.store
        values: dict[RowId, bytes] = {}
        while True:
            try:
                return store.render(op, selection, values)
            except MissingValues as missing:
                # Again and again: what was cached may have been evicted during the fetch.
                found = await self._replica.some_values(missing.ids)
                values.update(found)
                if len(found) < len(missing.ids):
                    selection = _before(selection, missing.ids[len(found)])

    async def _fetch(self, ids: Sequence[RowId]) -> dict[RowId, bytes]:
        """Fetch values for an evaluation that is tried again: what pruning took is not needed."""
        try:
            return await self._replica.values(ids)
        except Compacted:
            await self._replica.read_index()
            return {}


def _before(selection: Selection, row: RowId) -> Selection:
    """Return what comes before a row in a selection."""
    versions = selection.versions
    end = next(at for at, version in enumerate(versions) if version.id == row)
    return selection._replace(versions=versions[:end])


def _is_serializable(op: Txn) -> bool:
    """Whether every range allows a stale answer; vacuously so without any (contract 2.5)."""
    ranges = (*op.success, *op.failure)
    return all(isinstance(each, Range) and each.serializable for each in ranges)
