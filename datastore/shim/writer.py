"""The one task that writes: group commit over a compare-and-append log.

Life of a batch: take what waits, evaluate each write in order on an overlay of the index, append
all of it in one commit, apply, publish, answer. Reads never see what is not committed. A commit's
fate is decided by its row in the log, never guessed: see settle.py. The rules are those of
design.md section 3; the loop is that of its reference log.md, section I.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from datastore.shim.backends.api import (
    Appended,
    AuthState,
    Backend,
    Batch,
    Commit,
    Corrupt,
    Diverged,
    FileSync,
    Full,
    Moved,
    OutcomeUnknown,
    RowId,
    Turn,
    Unavailable,
)
from datastore.shim.errors import (
    CorruptStore,
    NoLeader,
    NoSpace,
    RequestError,
    ShimError,
    Stopped,
    StoreError,
    TimedOut,
    TooManyRequests,
)
from datastore.shim.futures import complete
from datastore.shim.kernel_sync import KernelSync, Unsupported
from datastore.shim.mvcc.auth import Caller
from datastore.shim.mvcc.auth_rows import encode
from datastore.shim.mvcc.ops import Result, Write
from datastore.shim.mvcc.overlay import Overlay
from datastore.shim.mvcc.store import MissingValues
from datastore.shim.mvcc.txn import needs_space
from datastore.shim.pending import Pending, Taker, expire, fail
from datastore.shim.replica import TAIL_ROWS, Replica
from datastore.shim.settle import BACKOFF_SECONDS, Forgotten, settle

log = logging.getLogger(__name__)


@dataclass(slots=True)
class WriterStats:
    """Counters since the start."""

    batches: int = 0
    writes: int = 0
    lost: int = 0
    settled: int = 0
    largest: int = 0
    sizes: deque[int] = field(default_factory=lambda: deque(maxlen=1024))


class Writer:
    """Takes writes, answers them once their commit is durable."""

    def __init__(
        self,
        replica: Replica,
        *,
        max_waiting: int = 5000,
        max_waiting_bytes: int = 64 << 20,
        batch_writes: int = 512,
        batch_bytes: int = 4 << 20,
        kernel: KernelSync | None = None,
    ) -> None:
        self.stats = WriterStats()
        self._replica = replica
        self._backend: Backend = replica.backend
        self._kernel = kernel
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._batch_writes = batch_writes
        self._batch_bytes = batch_bytes
        self._queue: deque[Pending] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._refusal: Callable[[], ShimError] | None = None
        self._stopping = False
        self._stopped = asyncio.Event()
        self._running = False

    def submit(
        self, write: Write, caller: Caller, size: int, taker: Taker, deadline: float | None = None
    ) -> Pending:
        """Queue a write whose answer is given to `taker`, in the order of the batch. Hot.

        Args:
            write: What to do; already checked.
            caller: On whose behalf, as was found out when the request came.
            size: Bytes of the request, for the bounds of queue and batch.
            taker: Takes the answer; it must not raise.
            deadline: On the loop's clock; a write that waits past it is dropped unevaluated.

        Raises:
            TooManyRequests: The queue is full.
            NoLeader: The database is away, see `hold`.
            Stopped: The server is stopping.
        """
        if self._refusal is not None:
            raise self._refusal()
        if len(self._queue) >= self._max_waiting or self._queued_bytes > self._max_waiting_bytes:
            raise TooManyRequests
        pending = Pending(write, caller, size, deadline, taker)
        self._queue.append(pending)
        self._queued_bytes += size
        if not self._wake.is_set():
            self._wake.set()
        return pending

    async def write(
        self, write: Write, caller: Caller, size: int, deadline: float | None = None
    ) -> Result:
        """Queue a write and wait for its answer, or raise it. As `submit` otherwise."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        pending = self.submit(write, caller, size, partial(complete, future), deadline)
        try:
            return await future
        finally:
            pending.abandon()
            del future, pending  # an error raised from it holds this frame

    async def run(self) -> None:
        """Write for ever, until `stop`; what waits then is still written."""
        self._running = True
        try:
            while True:
                if not self._queue:
                    if self._stopping:
                        return
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                waiting = self._take()
                if waiting:
                    await self._guarded(waiting)
                if self._queue:
                    await asyncio.sleep(0)  # answers leave before the next batch
        finally:
            self._running = False
            self._stopping = True
            self._refusal = Stopped
            fail(self._queue, Stopped())
            self._queue.clear()
            self._stopped.set()

    async def stop(self) -> None:
        """Refuse new writes, let those that wait end, and return when all have."""
        self._stopping = True
        self._refusal = Stopped
        self._wake.set()
        if self._running:
            await self._stopped.wait()
        else:
            fail(self._queue, Stopped())

    def hold(self, reason: str) -> None:
        """Refuse the writes that no batch has taken yet, and new ones until `resume`."""
        if not self._stopping:
            self._refusal = lambda: NoLeader(reason)
            fail(self._queue, NoLeader(reason))

    def resume(self) -> None:
        """Take writes again."""
        if not self._stopping:
            self._refusal = None

    # -- one batch ------------------------------------------------------------------------

    def _take(self) -> list[Pending]:
        """Take the next batch from the queue, without those whose client has gone."""
        now = asyncio.get_running_loop().time()
        waiting: list[Pending] = []
        size = 0
        queue = self._queue
        while queue and len(waiting) < self._batch_writes:
            if waiting and size + queue[0].size > self._batch_bytes:
                break
            pending = queue.popleft()
            self._queued_bytes -= pending.size
            if pending.done:
                continue
            if pending.deadline is not None and pending.deadline <= now:
                pending.fail(TimedOut())
                continue
            size += pending.size
            waiting.append(pending)
        return waiting

    async def _guarded(self, waiting: list[Pending]) -> None:
        """Commit a batch; whatever goes wrong, everybody in it gets an answer."""
        try:
            await self._commit(waiting)
        except ShimError as error:
            fail(waiting, error)
        except (Diverged, Corrupt) as error:
            self._replica.health.fail(str(error))
            fail(waiting, CorruptStore(str(error)))
        except BaseException:
            fail(waiting, Stopped())
            raise

    async def _commit(self, waiting: list[Pending]) -> None:
        replica = self._replica
        while waiting:
            await replica.trust()
            if replica.contended:
                waiting = await self._in_turn(waiting)
            else:
                waiting = await self._once(waiting, None)

    async def _in_turn(self, waiting: list[Pending]) -> list[Pending]:
        """As `_once`, under the turn lock, after reading the tail beneath it."""
        lane = self._replica.lanes.append
        lock = self._backend.turn()
        try:
            turn = await lane(lock.__enter__)
            try:
                await self._catch_up_in(turn)
                return await self._once(waiting, turn)
            finally:
                with contextlib.suppress(Unavailable, OutcomeUnknown):  # the lock went with it
                    await lane(lock.__exit__, None, None, None)
        except (Unavailable, OutcomeUnknown) as error:
            # Whoever has the turn may hang, and the compare proves the base without it too.
            log.warning("no turn to write was given: %s", error)
        return await self._once(waiting, None)

    async def _catch_up_in(self, turn: Turn) -> None:
        replica, goal = self._replica, -1
        while True:
            tail = await replica.lanes.append(turn.tail, replica.position, TAIL_ROWS)
            goal = max(goal, tail.head.change)
            if not await replica.absorb(tail):
                await replica.reload()
            if replica.position.change >= goal:
                return

    async def _once(self, waiting: list[Pending], turn: Turn | None) -> list[Pending]:
        """Evaluate and append once; return those that must be tried again."""
        replica = self._replica
        base = replica.position
        expected = base.change
        overlay = await self._evaluate(waiting)
        if replica.position.change != expected:
            return waiting  # moved while values were fetched
        if overlay.empty:
            return await self._answer_unwritten(waiting, expected, turn)
        batch = _to_batch(overlay, base)
        try:
            result = await self._append_or_settle(batch, waiting, turn)
        except Unavailable as error:
            return await self._away(waiting, error)
        except Full:
            return self._without_puts(waiting)
        if isinstance(result, Moved):
            self.stats.lost += 1
            await replica.catch_up()
            expire(waiting)
            return [p for p in waiting if not p.done]
        commit = Commit(expected + 1, batch.revision, batch.batch, batch.kinds)
        replica.apply(commit, overlay.applied())
        if not replica.shared:
            replica.health.serve()
        self._count(len(waiting))
        self._answer(waiting)
        return []

    async def _answer_unwritten(
        self, waiting: list[Pending], expected: int, turn: Turn | None
    ) -> list[Pending]:
        """Answer what appends nothing, once the head shows that it was evaluated on the latest.

        Failed compares, deletes of nothing and errors are reads: on a shared database they need
        a head read that began after they came (log.md A3).
        """
        if self._replica.shared and turn is None:
            await self._replica.read_index()
            if self._replica.position.change != expected:
                return waiting
        self._answer(waiting)
        return []

    async def _append_or_settle(
        self, batch: Batch, waiting: Sequence[Pending], turn: Turn | None
    ) -> Appended | Moved:
        self._replica.appending = batch.batch
        try:
            return await self._append(batch, turn)
        except OutcomeUnknown as error:
            log.warning("a commit's reply was lost: %s", error)
        try:
            result = await settle(self._replica, batch, lambda: expire(waiting))
        except Forgotten:
            await self._replica.reload()
            raise TimedOut from None
        self.stats.settled += 1
        return result

    async def _evaluate(self, waiting: Sequence[Pending]) -> Overlay:
        """Evaluate in order; a write that fails leaves no trace. Hot.

        Values that the cache has lost are fetched, then everything is evaluated again: nothing
        may be kept of an evaluation that another commit may have overtaken.
        """
        values: dict[RowId, bytes] = {}
        while True:
            overlay = Overlay(self._replica.store, values)
            try:
                for pending in waiting:
                    pending.error = None
                    try:
                        pending.result = overlay.evaluate(pending.write, pending.caller)
                    except (RequestError, StoreError) as error:
                        # Its frames hold the batch, which would hold the error.
                        pending.error = error.with_traceback(None)
            except MissingValues as missing:
                values.update(await self._replica.values(missing.ids))
            else:
                return overlay

    async def _append(self, batch: Batch, turn: Turn | None) -> Appended | Moved:
        """Append where the backend wants it, and make it durable. Never cancelled half-way."""
        if self._backend.inline:
            result = self._backend.append(batch)
        else:
            append = self._backend.append if turn is None else turn.append
            result = await self._replica.lanes.append(append, batch)
        if isinstance(result, Appended) and result.sync is not None:
            await self._make_durable(result.file, result.sync)
        return result

    async def _make_durable(self, file: FileSync | None, sync: Callable[[], None]) -> None:
        """Have a commit synced by the kernel, or else by a thread. Hot."""
        if file is not None and self._kernel is not None:
            with contextlib.suppress(Unsupported):
                file.done(*await self._kernel.sync(file.descriptor))
                return
        await self._replica.lanes.append(sync)

    # -- when things go wrong ---------------------------------------------------------------

    async def _away(self, waiting: list[Pending], error: Exception) -> list[Pending]:
        """The database cannot be reached: say so to all who wait, and rest before the next."""
        self._replica.suspect(str(error))
        fail(waiting, NoLeader(str(error)))
        await asyncio.sleep(BACKOFF_SECONDS)
        return []

    def _without_puts(self, waiting: list[Pending]) -> list[Pending]:
        """No space: refuse what adds, keep what does not, for that is the way out."""
        adding = [p for p in waiting if needs_space(p.write)]
        fail(adding or waiting, NoSpace())
        return [p for p in waiting if not needs_space(p.write)] if adding else []

    # -- small parts ------------------------------------------------------------------------

    def _count(self, size: int) -> None:
        stats = self.stats
        stats.batches += 1
        stats.writes += size
        stats.sizes.append(size)
        stats.largest = max(stats.largest, size)

    def _answer(self, waiting: Sequence[Pending]) -> None:
        """Hand out the answers in the order of the batch. Hot."""
        for pending in waiting:
            pending.answer()


def _to_batch(overlay: Overlay, base: Commit) -> Batch:
    return Batch(
        batch=os.urandom(16),
        expected=base.change,
        base=base.batch,
        revision=overlay.revision,
        kinds=overlay.kinds,
        rows=overlay.rows,
        granted=overlay.granted,
        dropped=overlay.dropped,
        auth=None if overlay.auth is None else AuthState(encode(overlay.auth)),
        alarms=overlay.alarms,
        compacted=overlay.compacted,
    )
