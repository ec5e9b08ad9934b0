"""The log in one SQLite file, appended to on the event loop.

An append takes some ten microseconds a row, less than handing it to a thread would cost, so it
runs where it is called (`inline`). What waits for the disk is the sync: done by us after the
commit (sqlite_wal.py), at once for a single row where the disk is fast, else beside the loop:
by the kernel (`Appended.file`), or by a thread if it cannot and the disk is slow. Checkpoints and
pruning go on in threads beside it (sqlite_upkeep.py). The measurements behind this are those of
write-path.md and kernel_sync.py.

The last commit row is the head, and inserting the next one is the compare: its primary key can
be taken only once. Only one server may open the file, so a key that is taken means that somebody
else writes to it, which is Corrupt and the end.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from datastore.shim.backends.api import (
    Alarm,
    Appended,
    AuthState,
    BackendError,
    Batch,
    Closeable,
    Commit,
    Corrupt,
    FileSync,
    Full,
    Head,
    Kinds,
    Lease,
    Member,
    Meta,
    Moved,
    NotReady,
    Page,
    RowId,
    Size,
    Tail,
    Turn,
    Unavailable,
    Values,
)
from datastore.shim.backends.int64 import to_signed
from datastore.shim.backends.sqlite_errors import to_backend_error, to_not_ready
from datastore.shim.backends.sqlite_file import DatabaseFile
from datastore.shim.backends.sqlite_reads import Reads, read_head
from datastore.shim.backends.sqlite_upkeep import Upkeep
from datastore.shim.backends.sqlite_wal import SLOW_SECONDS, WalFile
from datastore.shim.backends.stats import Stats

# Pages that may be written between two looks at how far the WAL is filled.
_LOOK_PAGES = 64
_PAGES_PER_COMMIT = 3

_BESIDE_KEYS = ~int(Kinds.LOG)

_BEGIN = "BEGIN IMMEDIATE"
_INSERT_COMMIT = "INSERT INTO byre_commit VALUES (?, ?, ?, ?, ?)"
_INSERT_ROW = "INSERT INTO byre_log VALUES (?, ?, ?, ?, ?, ?)"


class _Connections:
    """What is open while the store is: one writer, two readers, upkeep, the WAL."""

    def __init__(
        self, file: DatabaseFile, stats: Stats, fail: Callable[[BackendError], None]
    ) -> None:
        with ExitStack() as stack:
            self.writer = file.connect()
            stack.callback(self.writer.close)
            file.prepare(self.writer)
            # This commit creates or finds the WAL, and is FULL: whatever an earlier process had
            # committed but not synced is durable before anybody is shown it.
            self.writer.execute("UPDATE byre_head SET opened = opened + 1")
            self.writer.execute("PRAGMA synchronous=NORMAL")
            self.head = read_head(self.writer)
            self.pruned = self.head.pruned  # moved by another thread than the rest of the head
            (page_bytes,) = self.writer.execute("PRAGMA page_size").fetchone()
            self.wal = WalFile(file.path, page_bytes)
            stack.callback(self.wal.close)
            self.tails = Reads(file, stats)
            stack.callback(self.tails.close)
            self.rows = Reads(file, stats)
            stack.callback(self.rows.close)
            self.upkeep = Upkeep(file, self.wal, stats, fail)
            stack.callback(self.upkeep.close)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close everything, upkeep first."""
        self._stack.close()


class SQLiteBackend:
    """The backend of one file; `open` locks it, `close` lets it go."""

    shared = False
    inline = True

    def __init__(self, path: str | Path, *, syncs_beside: bool = False) -> None:
        """Open nothing yet.

        Args:
            path: The file.
            syncs_beside: Whether who appends syncs `Appended.file` without a thread.
        """
        self.stats = Stats()
        self._syncs_beside = syncs_beside
        self._file = DatabaseFile(path)
        self._connections: _Connections | None = None
        self._failure: BackendError | None = None
        self._unseen_pages = 0

    # -- life ---------------------------------------------------------------------------------

    def open(self) -> Head:
        if self._connections is not None:
            raise NotReady(f"{self._file.path} is open already")
        self._file.take()
        try:
            connections = _Connections(self._file, self.stats, self._fail)
        except sqlite3.Error as error:
            self._file.release()
            raise to_not_ready(error, self._file.path) from error
        except BaseException:
            self._file.release()
            raise
        self._failure = None
        self._connections = connections
        connections.upkeep.start()
        return connections.head

    def close(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.close()
            self._file.release()

    def check(self) -> None:
        """Raise Corrupt if the file or its WAL was replaced; also done every few seconds."""
        connections = self._use()
        try:
            self._file.check()
            connections.wal.check()
        except Corrupt as error:
            self._fail(error)
            raise

    def _use(self) -> _Connections:
        if self._failure is not None:
            raise self._failure
        if self._connections is None:
            raise Unavailable("the store is closed")
        return self._connections

    def _fail(self, error: BackendError) -> None:
        """Make everything that follows fail with `error`, if it is final."""
        if isinstance(error, Corrupt) and self._failure is None:
            self._failure = error

    # -- the one write ------------------------------------------------------------------------

    def append(self, batch: Batch) -> Appended | Moved:
        """Append on the calling thread. Hot."""
        use = self._use()
        head = use.head
        if batch.expected != head.change:
            return Moved(head._replace(pruned=use.pruned))
        started = time.perf_counter()
        with use.upkeep.writing:
            self._write(use.writer, batch)
        head = Head(
            head.change + 1,
            batch.revision,
            head.compacted if batch.compacted is None else batch.compacted,
            use.pruned,
            head.cluster_id,
            head.schema_version,
        )
        use.head = head
        self.stats.append_seconds.observe(time.perf_counter() - started)
        self.stats.batch_rows.observe(len(batch.rows))
        try:
            self._look_at_wal(use, len(batch.rows))
            return self._make_durable(use, Appended(head), len(batch.rows) + len(batch.granted))
        except Corrupt as error:
            self._fail(error)
            raise

    def _write(self, writer: sqlite3.Connection, batch: Batch) -> None:
        kinds = int(batch.kinds)  # operations on an IntFlag cost microseconds
        try:
            writer.execute(_BEGIN)
            writer.execute(
                _INSERT_COMMIT,
                (
                    batch.expected + 1,
                    batch.revision,
                    batch.batch,
                    kinds,
                    int(time.time()),
                ),
            )
            if batch.rows:
                writer.executemany(_INSERT_ROW, [(*meta, value) for meta, value in batch.rows])
            if kinds & _BESIDE_KEYS:
                _write_state(writer, batch)
            writer.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._undo(writer, error) from error
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise

    def _undo(self, writer: sqlite3.Connection, error: sqlite3.Error) -> BackendError:
        # SQLITE_FULL can leave the transaction open, other errors close it.
        with suppress(sqlite3.Error):
            if writer.in_transaction:
                writer.execute("ROLLBACK")
        found = to_backend_error(error, self._file.path)
        if isinstance(found, Full):
            self.stats.full += 1
            self._use().upkeep.relieve()
        self._fail(found)
        return found

    def _make_durable(self, use: _Connections, appended: Appended, rows: int) -> Appended:
        """Sync now, or add what has to be done elsewhere before anything is answered. Hot.

        Where one writes others are likely to write, and their next requests come meanwhile. For
        one alone there is nothing to do but wait, and to be woken costs some of a short sync.
        """
        if use.upkeep.wants_finish:
            return appended._replace(sync=lambda: self._sync_later(use, finish=True))
        if use.wal.is_slow() or (rows > 1 and self._syncs_beside):
            self.stats.syncs_deferred += 1
            file = (
                FileSync(use.wal.descriptor, partial(self._synced, use))
                if self._syncs_beside
                else None
            )
            return appended._replace(sync=lambda: self._sync_later(use, finish=False), file=file)
        self.stats.sync_seconds.observe(use.wal.sync())
        return appended

    def _synced(self, use: _Connections, error: OSError | None, seconds: float) -> None:
        """Take note of a sync by somebody else. Hot."""
        self.stats.sync_seconds.observe(seconds)
        try:
            # The loop's own delay is in it: a long one says that the disk may be slow, no more.
            use.wal.synced(error, min(seconds, SLOW_SECONDS), beside=False)
        except Corrupt as corrupt:
            self._fail(corrupt)
            raise

    def _sync_later(self, use: _Connections, *, finish: bool) -> None:
        """Sync, in a thread, and do the part of a checkpoint for which the writer must wait."""
        try:
            self.stats.sync_seconds.observe(use.wal.sync(beside=True))
            if finish:
                use.upkeep.finish()
        except Corrupt as error:
            self._fail(error)
            raise
        except (Full, Unavailable):
            # The commit is durable; the checkpoint is tried again when the WAL has grown.
            use.upkeep.wants_finish = False

    def _look_at_wal(self, use: _Connections, rows: int) -> None:
        self._unseen_pages += rows + _PAGES_PER_COMMIT
        if self._unseen_pages >= _LOOK_PAGES or use.wal.has_changed():
            self._unseen_pages = 0
            use.upkeep.notice(use.wal.used_bytes())

    # -- reads --------------------------------------------------------------------------------

    def head(self) -> Head:
        return self._use().tails.head()

    def commit(self, change: int) -> Commit | None:
        return self._use().tails.commit(change)

    def tail(self, position: Commit, limit: int) -> Tail:
        return self._use().tails.tail(position, limit)

    @contextmanager
    def load(self) -> Iterator[tuple[Head, Commit, Iterator[Sequence[Meta]]]]:
        self._use()
        # A connection of its own: a load lasts, and other reads go on.
        reads = Reads(self._file, self.stats)
        try:
            with reads.load() as loaded:
                yield loaded
        finally:
            reads.close()

    def history(self, first: int, last: int, limit: int) -> Page:
        return self._use().rows.history(first, last, limit)

    def values(self, ids: Sequence[RowId]) -> Values:
        return self._use().rows.values(ids)

    def leases(self) -> Sequence[Lease]:
        return self._use().rows.leases()

    def auth(self) -> AuthState:
        return self._use().rows.auth()

    def alarms(self) -> Sequence[Alarm]:
        return self._use().rows.alarms()

    def size(self) -> Size:
        return self._use().rows.size()

    # -- upkeep -------------------------------------------------------------------------------

    def prune(self, pruned: int, ids: Sequence[RowId]) -> None:
        use = self._use()
        if pruned > use.head.compacted:
            raise ValueError(f"cannot prune {pruned} above compacted {use.head.compacted}")
        with self._upkeep_errors():
            use.upkeep.raise_pruned(pruned)
            use.pruned = max(use.pruned, pruned)
            use.upkeep.prune(ids)

    def defragment(self) -> None:
        with self._upkeep_errors():
            self._use().upkeep.defragment()

    @contextmanager
    def _upkeep_errors(self) -> Iterator[None]:
        try:
            yield
        except BackendError as error:
            self._fail(error)
            raise

    # -- what only shared stores have ---------------------------------------------------------

    def turn(self) -> AbstractContextManager[Turn]:
        raise _for_shared_stores("turn")

    def keep_alive(self, ids: Sequence[int]) -> set[int]:
        raise _for_shared_stores("keep_alive")

    def expire(self, limit: int) -> Sequence[int]:
        raise _for_shared_stores("expire")

    def promote(self) -> None:
        raise _for_shared_stores("promote")

    def heartbeat(self, me: Member) -> Sequence[Member]:
        self._use()
        return [me]

    def listen(self, wake: Callable[[], None]) -> Closeable | None:
        self._use()
        return None


def _for_shared_stores(operation: str) -> BackendError:
    return BackendError(f"{operation} is for shared stores: nobody else uses this one")


def _write_state(writer: sqlite3.Connection, batch: Batch) -> None:
    """Write what a batch changes besides keys."""
    # Dropped first: one batch may revoke a lease and grant its id again.
    if batch.dropped:
        writer.executemany(
            "DELETE FROM byre_lease WHERE id = ?", [(lease,) for lease in batch.dropped]
        )
    if batch.granted:
        writer.executemany("INSERT OR REPLACE INTO byre_lease VALUES (?, ?)", batch.granted)
    if batch.compacted is not None:
        writer.execute("UPDATE byre_head SET compacted = ?", (batch.compacted,))
    if batch.alarms is not None:
        writer.execute("DELETE FROM byre_alarm")
        writer.executemany(
            "INSERT INTO byre_alarm VALUES (?, ?)",
            [(to_signed(alarm.member), alarm.kind) for alarm in batch.alarms],
        )
    if batch.auth is not None:
        writer.execute("DELETE FROM byre_auth")
        writer.executemany(
            "INSERT INTO byre_auth VALUES (?, ?, ?)",
            [(kind, name, body) for (kind, name), body in batch.auth.rows.items()],
        )
