"""Range requests (contract 2.3): which versions they select, and their KeyValues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

from datastore.shim.backends.api import SUB_BITS, RowId
from datastore.shim.errors import Compacted, FutureRevision
from datastore.shim.mvcc.cache import ValueCache
from datastore.shim.mvcc.keyrange import KeyRange
from datastore.shim.mvcc.ops import Range, RangeResult, SortOrder, SortTarget
from datastore.shim.mvcc.version import Version
from datastore.shim.mvcc.wire import frame_metadata, value_of


class MissingValues(Exception):
    """Values are not in memory: fetch these rows, add them to `values` and try again."""

    def __init__(self, ids: Sequence[RowId]) -> None:
        super().__init__(f"{len(ids)} values are not in memory")
        self.ids = ids


class Selection(NamedTuple):
    """What a range request selects, before values are fetched."""

    versions: Sequence[Version]
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls
    more: bool
    revision: int  # the header's: the current one


class Source(Protocol):
    """Where versions are looked up: the committed index, or what a batch makes of it."""

    def find(self, key: bytes) -> Version | None:
        """Return the live version of a key now."""

    def find_at(self, key: bytes, revision: int) -> Version | None:
        """Return the live version of a key as of a revision."""

    def scan(self, span: KeyRange, revision: int | None, limit: int) -> list[Version]:
        """Return live versions of a range in key order, at most `limit` (0: all)."""

    def count(self, span: KeyRange, revision: int | None) -> int:
        """Return how many keys of a range are live."""


def select(
    source: Source, op: Range, current: int, compacted: int, values: Mapping[RowId, bytes]
) -> Selection:
    """Return what `op` selects at revision `current` of the source. Hot for single keys.

    Raises:
        Compacted, FutureRevision: `op.revision` cannot be read.
        MissingValues: it sorts by value, and values are not in memory.
    """
    revision = _readable(op.revision, current, compacted)
    if not op.end:
        version = source.find(op.key) if revision is None else source.find_at(op.key, revision)
        if version is None:
            return Selection((), 0, more=False, revision=current)
        if op.count_only or (_has_filters(op) and not _passes(op, version)):
            return Selection((), 1, more=False, revision=current)
        return Selection((version,), 1, more=False, revision=current)
    span = KeyRange.from_wire(op.key, op.end)
    count = source.count(span, revision)
    if op.count_only or not count:
        return Selection((), count, more=False, revision=current)
    versions = _ordered(source, op, span, revision, values)
    limit = op.limit
    if 0 < limit < len(versions):
        return Selection(versions[:limit], count, more=True, revision=current)
    return Selection(versions, count, more=False, revision=current)


def render(
    op: Range, selection: Selection, cache: ValueCache, values: Mapping[RowId, bytes]
) -> RangeResult:
    """Return the answer to `op`; values that had to be encoded are cached. Hot.

    Raises:
        MissingValues: some are neither cached nor in `values`.
    """
    versions, count, more, revision = selection
    if op.keys_only:
        # etcd 3.7 answers from its index, which knows no leases, unless values are needed.
        leases = op.sort_target is SortTarget.VALUE
        return RangeResult([_metadata(v, leases) for v in versions], count, more, revision)
    return RangeResult(frames(versions, cache, values), count, more, revision)


def frames(
    versions: Sequence[Version], cache: ValueCache, values: Mapping[RowId, bytes]
) -> list[bytes]:
    """Return the framed KeyValues of live versions, or raise MissingValues. Hot."""
    found = [version.framed for version in versions]
    if None not in found:
        return found  # type: ignore[return-value]
    missing = [v.id for v, framed in zip(versions, found, strict=True) if framed is None]
    if absent := [row for row in missing if row not in values]:
        raise MissingValues(absent)
    whole: list[bytes] = []
    for version, known in zip(versions, found, strict=True):
        framed = known
        if framed is None:
            framed = version.encode(values[version.id])
            cache.add(version, framed)
        whole.append(framed)
    return whole


def check_revision(revision: int, current: int, compacted: int) -> None:
    """Refuse a range of a transaction whose revision cannot be read (etcd: checkRange)."""
    if revision:
        if revision > current:
            raise FutureRevision
        if revision < compacted:
            raise Compacted(compacted)


def _readable(revision: int, current: int, compacted: int) -> int | None:
    if revision <= 0 or revision == current:
        return None
    if revision > current:
        raise FutureRevision
    if revision < compacted:
        raise Compacted(compacted)
    return revision


def _ordered(
    source: Source,
    op: Range,
    span: KeyRange,
    revision: int | None,
    values: Mapping[RowId, bytes],
) -> Sequence[Version]:
    """Return at least `limit` + 1 of the versions that pass the filters, where there are."""
    filtered = _has_filters(op)
    by_key = op.sort_target is SortTarget.KEY
    # etcd's isDefaultOrdering: an order of NONE counts as none whatever the target is, so the
    # limit cuts in key order first and the rest is sorted after that.
    pushed_down = not filtered and (
        op.sort_order is SortOrder.NONE or (by_key and op.sort_order is SortOrder.ASCEND)
    )
    limit = op.limit + 1 if pushed_down and op.limit > 0 else 0
    versions: Sequence[Version] = source.scan(span, revision, limit)
    if filtered:
        versions = [version for version in versions if _passes(op, version)]
    if by_key:
        return versions[::-1] if op.sort_order is SortOrder.DESCEND else versions
    return sorted(
        versions,
        key=_sort_key(op.sort_target, versions, values),
        reverse=op.sort_order is SortOrder.DESCEND,
    )


def _sort_key(
    target: SortTarget, versions: Iterable[Version], values: Mapping[RowId, bytes]
) -> Callable[[Version], int | bytes]:
    if target is SortTarget.VERSION:
        return attrgetter("version")
    if target is SortTarget.CREATE:
        return attrgetter("create_revision")
    if target is SortTarget.MOD:
        return attrgetter("mod_revision")
    held = raw_values(versions, values)
    return lambda version: held[version.id]


def raw_values(
    versions: Iterable[Version], values: Mapping[RowId, bytes]
) -> Mapping[RowId, bytes]:
    """Return the values of live versions by row id, or raise MissingValues."""
    held: dict[RowId, bytes] = {}
    missing: list[RowId] = []
    for version in versions:
        row = version.id
        if version.framed is not None:
            held[row] = value_of(version.framed)
        elif row in values:
            held[row] = values[row]
        else:
            missing.append(row)
    if missing:
        raise MissingValues(missing)
    return held


def _has_filters(op: Range) -> bool:
    return bool(op.min_mod or op.max_mod or op.min_create or op.max_create)


def _passes(op: Range, version: Version) -> bool:
    mod, create = version.id >> SUB_BITS, version.create_revision
    return not (
        (op.max_mod and mod > op.max_mod)
        or (op.min_mod and mod < op.min_mod)
        or (op.max_create and create > op.max_create)
        or (op.min_create and create < op.min_create)
    )


def _metadata(version: Version, leases: bool) -> bytes:
    return frame_metadata(
        version.key,
        version.create_revision,
        version.id >> SUB_BITS,
        version.version,
        version.lease if leases else 0,
    )
