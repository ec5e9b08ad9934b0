"""What keeps a SQLite file small beside the appends: checkpoints, pruning, vacuuming.

All of it runs in threads on a connection of its own, in steps of about a millisecond. `writing` is
held for each step that writes, so that an append, which runs on the event loop, waits for at most
one step; between steps upkeep sleeps at least as long as the step took.

A checkpoint copies the WAL into the database. Done passively beside steady appends it never gets
to the end, and only a WAL that was copied to its end is re-used from the start. So the bulk is
copied in the background, and the rest by `finish`, which the writer waits for off the loop.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from datastore.shim.backends.api import BackendError, RowId, Unavailable
from datastore.shim.backends.limits import COMMIT_SECONDS, COMMITS_KEPT
from datastore.shim.backends.sqlite_errors import to_backend_error
from datastore.shim.backends.sqlite_file import DatabaseFile
from datastore.shim.backends.sqlite_wal import WalFile
from datastore.shim.backends.stats import Stats

log = logging.getLogger(__name__)

CHECKPOINT_BYTES = 4 << 20
RESTART_BYTES = 16 << 20
CHECK_SECONDS = 3.0

_STEP_SECONDS = 0.001
_FIRST_STEP = 32
_MAX_STEP = 1024
_COMMITS_STEP = 256
_FREE_SHARE = 10  # a free page for ten used ones may stay: it is soon written again
_FREE_PAGES = 64


class Upkeep:
    """Checkpoints in a thread of its own; prunes and vacuums in the caller's."""

    def __init__(
        self,
        file: DatabaseFile,
        wal: WalFile,
        stats: Stats,
        fail: Callable[[BackendError], None],
    ) -> None:
        """Connect; `start` begins checkpointing.

        Args:
            file: The locked database.
            wal: Its write-ahead log.
            stats: Where to count.
            fail: Told of what makes the store unusable.
        """
        self.writing = threading.Lock()
        self.wants_finish = False
        self._file = file
        self._wal = wal
        self._stats = stats
        self._fail = fail
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._due_bytes = CHECKPOINT_BYTES
        self._restart_bytes = 0
        self._stopped = threading.Event()
        self._connection = file.connect()
        # Order in the WAL is enough: a raised `pruned` is in front of the deletions.
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._thread = threading.Thread(target=self._run, name="byre-sqlite-upkeep", daemon=True)

    def start(self) -> None:
        """Begin checkpointing."""
        self._thread.start()

    def close(self) -> None:
        """Stop, waiting for the step under way. Idempotent."""
        self._stopped.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._connection.close()

    def relieve(self) -> None:
        """Copy the WAL soon, so that it is written from its start again: the disk is full."""
        self._due.set()

    def notice(self, wal_bytes: int) -> None:
        """Take note of how far the WAL is filled."""
        self._stats.wal_bytes = wal_bytes
        if self._is_due(wal_bytes) and not self.wants_finish:
            self._due.set()

    def _is_due(self, wal_bytes: int) -> bool:
        if wal_bytes < CHECKPOINT_BYTES:
            self._due_bytes = CHECKPOINT_BYTES
        return wal_bytes >= self._due_bytes

    def _run(self) -> None:
        while not self._stopped.is_set():
            due = self._due.wait(CHECK_SECONDS)
            if self._stopped.is_set():
                return
            self._due.clear()
            try:
                self._file.check()
                self._wal.check()
                if due:
                    self._copy()
            except BackendError as error:
                self._report(error)

    def _report(self, error: BackendError) -> None:
        if isinstance(error, Unavailable):
            log.warning("a checkpoint was not possible", extra={"reason": str(error)})
        else:
            self._fail(error)

    def _copy(self) -> None:
        """Copy the bulk of the WAL, and have the writer wait for what came meanwhile."""
        self._checkpoint("PASSIVE")
        self.wants_finish = True

    def finish(self) -> None:
        """Copy what is left of the WAL; the caller makes sure that nobody appends meanwhile.

        A WAL that readers have kept from being re-used for too long is restarted, which waits
        for them a moment. Where that does not help either, it may grow by half until the next.
        """
        if self._stopped.is_set():
            return
        used = self._wal.used_bytes()
        restart = used >= max(self._restart_bytes, RESTART_BYTES)
        self._stats.restarts += restart
        busy = self._checkpoint("RESTART" if restart else "PASSIVE")
        if restart:
            self._restart_bytes = used * 3 // 2 if busy else 0
        self._due_bytes = used + CHECKPOINT_BYTES
        self.wants_finish = False

    def _checkpoint(self, mode: str) -> bool:
        """Return whether somebody was in the way."""
        started = time.perf_counter()
        with self._statements() as connection:
            busy, _, _ = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        self._stats.checkpoint_seconds.observe(time.perf_counter() - started)
        return bool(busy)

    def raise_pruned(self, pruned: int) -> None:
        """Tell every reader that rows may be gone from now on."""
        with self._transaction() as connection:
            connection.execute("UPDATE byre_head SET pruned = max(pruned, ?)", (pruned,))

    def prune(self, ids: Sequence[RowId]) -> None:
        """Delete rows and old commits, then give free pages back."""
        pending = sorted(ids)
        position = 0
        for step in self._steps():
            chunk = json.dumps(pending[position : position + step])
            with self._transaction() as connection:
                connection.execute(
                    "DELETE FROM byre_log WHERE id IN (SELECT value FROM json_each(?))", (chunk,)
                )
            position += step
            if position >= len(pending):
                break
        self._stats.pruned_rows += len(pending)
        self._prune_commits()
        if self._vacuum(_FREE_SHARE, _FREE_PAGES):
            self._shrink()

    def _prune_commits(self) -> None:
        """Delete commit rows that are neither among the newest nor recent."""
        with self._statements() as connection:
            oldest, newest = connection.execute(
                "SELECT min(change), max(change) FROM byre_commit"
            ).fetchone()
            last = newest - COMMITS_KEPT
            (last,) = connection.execute(
                "SELECT coalesce(max(change), -1) FROM byre_commit WHERE change <= ? AND at < ?",
                (last, int(time.time() - COMMIT_SECONDS)),
            ).fetchone()
        for _ in self._steps():
            if oldest > last:
                break
            oldest = min(oldest + _COMMITS_STEP, last + 1)
            with self._transaction() as connection:
                connection.execute("DELETE FROM byre_commit WHERE change < ?", (oldest,))

    def defragment(self) -> None:
        """Give every free page back."""
        self._vacuum(0, 0)
        self._shrink()

    def _vacuum(self, share: int, pages: int) -> bool:
        """Free pages, leaving some to be re-used; return whether there were any to free."""
        with self._statements() as connection:
            (total,) = connection.execute("PRAGMA page_count").fetchone()
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        surplus = free - (max(pages, (total - free) // share) if share else 0)
        if surplus <= 0:
            return False
        left = surplus
        for step in self._steps():
            with self._statements() as connection, self.writing:
                # The pragma yields a row without columns for each page, and only a script is
                # run on through them. It is one transaction.
                connection.executescript(f"PRAGMA incremental_vacuum({min(step, left)})")
            left -= step
            if left <= 0:
                break
        self._stats.vacuumed_pages += surplus
        return True

    def _shrink(self) -> None:
        """Copy the whole WAL; only then is the file truncated."""
        self._checkpoint("PASSIVE")
        with self.writing:
            self._checkpoint("PASSIVE")

    def _steps(self) -> Iterator[int]:
        """Give step sizes that take about a millisecond, resting after each."""
        step = _FIRST_STEP
        while True:
            started = time.perf_counter()
            yield step
            taken = time.perf_counter() - started
            if taken < _STEP_SECONDS / 2:
                step = min(step * 2, _MAX_STEP)
            elif taken > _STEP_SECONDS * 2:
                step = max(step // 2, 1)
            if self._is_due(self._wal.used_bytes()):
                self._copy()
            if self._stopped.wait(min(max(taken, 0.001), 0.05)):
                raise Unavailable("the store is closed")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._statements() as connection, self.writing:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextmanager
    def _statements(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise to_backend_error(error, self._file.path) from error
