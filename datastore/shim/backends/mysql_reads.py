"""Reads of the log on MySQL and MariaDB, and what makes other servers' commits durable.

Rows come in pages of at most `PAGE_ROWS`, because the driver holds Python's lock while it takes
them apart (log.md B5), and values above `INLINE_BYTES` separately, so that no page is larger than
memory. A page is one statement that has `pruned` from the same snapshot (log.md A4); pages of one
read are later snapshots, and the largest `pruned` is the one that counts.

InnoDB without a binary log shows commits before they are on disk. What a reader hands on of
others' commits is therefore first covered by a write of its own: the log on disk is sequential,
so its sync takes everything before it along (log.md A7).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from datastore.shim.backends.api import (
    PAGE_BYTES,
    Commit,
    Corrupt,
    Head,
    Meta,
    Page,
    Row,
    RowId,
    Tail,
    Unavailable,
    Values,
    cut_values,
    to_revision,
    to_row_id,
)
from datastore.shim.backends.mysql_append import numbers
from datastore.shim.backends.mysql_session import Result, Session
from datastore.shim.backends.sql_link import Link
from datastore.shim.backends.sql_reads import (
    Names,
    Reads,
    Statements,
    to_commit,
    to_head,
    verify_position,
)

PAGE_ROWS: Final = 1000
INLINE_BYTES: Final = 8192
_LAST_ID: Final = (1 << 63) - 1

_HEAD_AND_COMMITS = """
SELECT h.{change}, h.revision, h.compacted, h.pruned, h.cluster_id, h.schema_version, {replica},
  c.{change}, c.revision, c.batch, c.kinds
FROM {head} h LEFT JOIN {commit} c ON c.{change} >= %d
WHERE h.id = 1 ORDER BY c.{change} LIMIT %d
"""
_ROWS = """
SELECT h.pruned, l.id, l.create_revision, l.version, l.lease, l.{key},
  IF(OCTET_LENGTH(l.value) <= %d, l.value, NULL), OCTET_LENGTH(l.value)
FROM {head} h LEFT JOIN {log} l ON l.id >= %d AND l.id < %d
WHERE h.id = 1 ORDER BY l.id LIMIT %d
"""
_SMALL_VALUES = """
SELECT h.pruned, l.id, IF(OCTET_LENGTH(l.value) <= %d, l.value, NULL), OCTET_LENGTH(l.value)
FROM {head} h LEFT JOIN {log} l ON l.id IN (%s) AND l.value IS NOT NULL WHERE h.id = 1
"""
_VALUES = """
SELECT h.pruned, l.id, l.value
FROM {head} h LEFT JOIN {log} l ON l.id IN (%s) AND l.value IS NOT NULL WHERE h.id = 1
"""
_METAS = """
SELECT id, create_revision, version, lease, {key} FROM {log}
WHERE id > %d ORDER BY id LIMIT %d
"""
_SNAPSHOT = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; "
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
)
_COVER = "UPDATE {sync} SET times = times + 1 WHERE id = 1"

Run = Callable[[str], list[Result]]


class _Taken(NamedTuple):
    """Rows of whole units."""

    pruned: int
    rows: Sequence[Row]
    more: bool


class MysqlReads(Reads):
    """Reads over two links, one for head and tail, one for what may take longer."""

    def __init__(self, names: Names, sync: str, tails: Link[Session], rows: Link[Session]) -> None:
        self._sessions = tails
        self._pages = rows
        self.statements = Statements(names)
        super().__init__(self.statements, tails, rows)
        self._commits = names.fill(_HEAD_AND_COMMITS)
        self._values, self._metas = names.fill(_VALUES), names.fill(_METAS)
        self._rows_page, self._small = names.fill(_ROWS), names.fill(_SMALL_VALUES)
        self._cover = _COVER.format(sync=sync)
        self._durable = -1

    # -- what others committed ------------------------------------------------------------------

    def note_durable(self, change: int) -> None:
        """Note that a commit of this server, and so everything before it, is on disk."""
        self._durable = max(self._durable, change)

    def cover(self, change: int, session: Session | None = None) -> None:
        """Return when the commits up to `change`, which were seen, are on disk.

        Args:
            change: The newest commit seen.
            session: Of a link held by the caller; that of tails where None.
        """
        if change <= self._durable:
            return
        if session is None:
            with self._sessions.reading() as own:
                self.cover(change, own)
            return
        if session.facts.early:
            session.run(self._cover)
        self.note_durable(change)

    # -- the log --------------------------------------------------------------------------------

    def commit(self, change: int) -> Commit | None:
        """Return the commit row of `change`, once it is on disk, or None."""
        found = super().commit(change)
        if found is not None:
            self.cover(found.change)
        return found

    def tail(self, position: Commit, limit: int) -> Tail:
        """Return commits after `position`; see `Backend.tail`. One statement if there are none."""
        with self._sessions.reading() as session:
            found = session.run(self.commits_statement(position, limit))[-1]
            try:
                tail = self.finish_tail(session.run, position, found, limit)
            except Unavailable:  # no primary any more: the next call looks for one
                session.close()
                raise
            if tail.commits:
                self.cover(tail.commits[-1].change, session)
        return tail

    def commits_statement(self, position: Commit, limit: int) -> str:
        """Return the statement for the head and the commits from `position` on."""
        return self._commits % (position.change, max(limit, 1) + 1)

    def rows_statement(self, position: Commit, limit: int) -> str:
        """Return the statement for the first page of rows after `position`."""
        return self._page_statement(to_row_id(position.revision + 1, 0), _LAST_ID, limit)

    def finish_tail(
        self, run: Run, position: Commit, found: Result, limit: int, page: Result | None = None
    ) -> Tail:
        """Return the tail that begins with what the commits' statement found.

        Rows are read later than commits, so those of every commit are there.

        Args:
            run: Runs statements, where the caller is.
            position: Where the reader stands; verified.
            found: What `commits_statement` gave.
            limit: Of rows, about.
            page: What `rows_statement` gave, if it was sent with the other.
        """
        head = to_head([row[:7] for row in found.rows[:1]])
        commits = [to_commit(*row[7:]) for row in found.rows if row[7] is not None]
        verify_position(
            position, commits, head, lambda: int(run(self.statements.oldest)[-1].rows[0][0])
        )
        commits = [c for c in commits if position.change < c.change <= head.change]
        if not commits:
            return Tail(head, [], [])
        revisions = [commit.revision for commit in commits]
        first = to_row_id(position.revision + 1, 0)
        stop = to_row_id(revisions[-1] + 1, 0)
        taken = self._take(
            run,
            (first, min(stop, _LAST_ID), limit),
            lambda row: bisect_left(revisions, to_revision(row)),
            page,
        )
        if taken.more:
            del commits[bisect_left(revisions, to_revision(taken.rows[-1].meta.id)) + 1 :]
        return Tail(head._replace(pruned=max(head.pruned, taken.pruned)), commits, taken.rows)

    def history(self, first: int, last: int, limit: int) -> Page:
        """Return a page of whole revisions; see `Backend.history`."""
        with self._pages.reading() as session:
            span = to_row_id(first, 0), min(to_row_id(last + 1, 0), _LAST_ID), limit
            return Page(*self._take(session.run, span, to_revision))

    def values(self, ids: Sequence[RowId]) -> Values:
        """Return a page of values; see `Backend.values`."""
        with self._pages.reading() as session:
            return self._page_of_values(session.run, ids)

    @contextmanager
    def load(self, session: Session) -> Iterator[tuple[Head, Commit, Iterator[Sequence[Meta]]]]:
        """Give the head, its commit and pages of every row's meta, in one snapshot."""
        session.run(_SNAPSHOT)
        head = to_head(session.run(self.statements.head)[-1].rows)
        found = session.run(self.statements.commit % head.change)[-1].rows
        if not found:
            raise Corrupt(f"the row of commit {head.change}, the newest, is missing")
        self.cover(head.change)

        def pages() -> Iterator[Sequence[Meta]]:
            last = -1
            while rows := session.run(self._metas % (last, PAGE_ROWS))[-1].rows:
                yield [Meta._make(row) for row in rows]
                last = rows[-1][0]

        yield head, to_commit(*found[0]), pages()

    # -- pages ----------------------------------------------------------------------------------

    def _page_statement(self, first: RowId, stop: RowId, limit: int) -> str:
        return self._rows_page % (INLINE_BYTES, first, stop, _page_rows(limit))

    def _take(
        self,
        run: Run,
        span: tuple[RowId, RowId, int],
        to_unit: Callable[[RowId], int],
        page: Result | None = None,
    ) -> _Taken:
        """Take whole units until there are `limit` rows or a page of bytes; say if more follow."""
        limit = max(span[2], 1)
        pruned, size, unit = -1, 0, -1
        rows: list[Row] = []
        large: dict[int, int] = {}
        more = False
        for below, row_id, create_revision, version, lease, key, value, length in self._walk(
            run, span, page
        ):
            pruned = max(pruned, below)
            if row_id is None:
                break
            if len(rows) >= limit or size >= PAGE_BYTES:
                if to_unit(row_id) != unit:
                    more = True
                    break
            else:
                unit = to_unit(row_id)
            if value is None and length is not None:
                large[row_id] = length
            rows.append(Row(Meta(row_id, create_revision, version, lease, key), value))
            size += len(key) + (length or 0)
        if large:
            pruned, rows = self._with_values(run, rows, large, pruned)
        return _Taken(pruned, rows, more)

    def _walk(
        self, run: Run, span: tuple[RowId, RowId, int], page: Result | None
    ) -> Iterator[tuple[Any, ...]]:
        """Give rows of the span page by page; a page without rows has one of NULLs."""
        first, stop, limit = span
        while True:
            if page is None:
                (page,) = run(self._page_statement(first, stop, limit))
            last = page.rows[-1][1] if page.rows else None
            for row in page.rows:
                yield row if row[1] is None or row[1] < stop else (row[0], *[None] * 7)
            if last is None or last >= stop or len(page.rows) < _page_rows(limit):
                return
            first, page = last + 1, None

    def _with_values(
        self, run: Run, rows: Sequence[Row], large: dict[RowId, int], pruned: int
    ) -> tuple[int, list[Row]]:
        """Fetch large values, some at a time; a row that pruning took meanwhile is left out."""
        values: dict[RowId, bytes] = {}
        for below, row_id, value in self._read_values(run, list(large), large):
            pruned = max(pruned, below)
            values[row_id] = value
        return pruned, [
            Row(row.meta, values[row.meta.id]) if row.meta.id in large else row
            for row in rows
            if row.meta.id not in large or row.meta.id in values
        ]

    def _page_of_values(self, run: Run, ids: Sequence[RowId]) -> Values:
        """Take values until there is a page of bytes: small ones with all lengths, then large."""
        found: dict[RowId, bytes | None] = {}
        large: dict[RowId, int] = {}
        pruned, size, looked = -1, 0, 0
        for start in range(0, max(len(ids), 1), PAGE_ROWS):
            part = numbers(ids[start : start + PAGE_ROWS]).decode()
            rows = run(self._small % (INLINE_BYTES, part))[-1].rows
            pruned = max(pruned, rows[0][0])
            stored = {row_id: (value, length) for _, row_id, value, length in rows}
            for row_id in ids[start : start + PAGE_ROWS]:
                if size >= PAGE_BYTES:
                    break
                looked += 1
                if row_id in stored and row_id not in found:
                    found[row_id], length = stored[row_id]
                    size += length
                    if found[row_id] is None:
                        large[row_id] = length
            if size >= PAGE_BYTES:
                break
        for below, row_id, value in self._read_values(run, list(large), large) if large else ():
            pruned = max(pruned, below)
            found[row_id] = value
        return cut_values(pruned, found, ids[:looked])

    def _read_values(
        self, run: Run, ids: Sequence[RowId], sizes: dict[RowId, int] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        for part in _parts(ids, sizes or {}):
            yield from run(self._values % numbers(part).decode())[-1].rows


def _parts(ids: Sequence[RowId], sizes: dict[RowId, int]) -> Iterator[Sequence[RowId]]:
    """Cut ids into pages of rows and bytes; there is always one."""
    part: list[RowId] = []
    size = 0
    for row_id in ids:
        if len(part) >= PAGE_ROWS or size >= PAGE_BYTES:
            yield part
            part, size = [], 0
        part.append(row_id)
        size += sizes.get(row_id, 0)
    yield part


def _page_rows(limit: int) -> int:
    return min(PAGE_ROWS, max(limit, 1) + 1)
