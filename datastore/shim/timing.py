"""A backend that measures how long another one takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, TypeVar, TypeVarTuple

from datastore.shim.backends.api import (
    Alarm,
    Appended,
    AuthState,
    Backend,
    Batch,
    Closeable,
    Commit,
    FileSync,
    Head,
    Lease,
    Member,
    Meta,
    Moved,
    Page,
    RowId,
    Size,
    Tail,
    Turn,
    Values,
)
from datastore.shim.backends.stats import Stats

log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Observe = Callable[[str, float], None]
"""Takes the name of an operation and the seconds it took."""


class SlowSql(NamedTuple):
    """How long an operation may take, in seconds, until it is told of; 0 is for ever."""

    tell: float = 0.0
    warn: float = 0.0


def tell_slow(observe: Observe, slow: SlowSql) -> Observe:
    """Return what passes on what it is told, and logs what was slow."""

    def observed(operation: str, seconds: float) -> None:
        observe(operation, seconds)
        if 0 < slow.warn < seconds:
            log.warning("slow SQL", extra={"operation": operation, "seconds": round(seconds, 3)})
        elif 0 < slow.tell < seconds:
            log.info("slow SQL", extra={"operation": operation, "seconds": round(seconds, 3)})

    return observed


class TimedBackend:
    """Passes every call on and tells how long it took, whether it succeeded or not."""

    def __init__(self, backend: Backend, observe: Observe) -> None:
        self.shared = backend.shared
        self.inline = backend.inline
        self.stats: Stats | None = getattr(backend, "stats", None)
        """What a SQL backend counts by itself."""
        self._backend = backend
        self._observe = observe
        self.values_fetched = 0
        """Values that were not in memory."""

    def open(self) -> Head:
        return self._timed("open", self._backend.open)

    def head(self) -> Head:
        return self._timed("head", self._backend.head)

    def commit(self, change: int) -> Commit | None:
        return self._timed("commit", self._backend.commit, change)

    def append(self, batch: Batch) -> Appended | Moved:
        """Append; what remains to be synced is measured by itself."""
        result = self._timed("append", self._backend.append, batch)
        if isinstance(result, Appended) and result.sync is not None:
            sync, file = result.sync, result.file
            if file is not None:
                file = FileSync(file.descriptor, self._observed(file.done))
            return Appended(result.head, lambda: self._timed("sync", sync), file)
        return result

    def _observed(
        self, done: Callable[[OSError | None, float], None]
    ) -> Callable[[OSError | None, float], None]:
        def observed(error: OSError | None, seconds: float) -> None:
            self._observe("sync", seconds)
            done(error, seconds)

        return observed

    def turn(self) -> AbstractContextManager[Turn]:
        return self._backend.turn()

    @contextmanager
    def load(self) -> Iterator[tuple[Head, Commit, Iterator[Sequence[Meta]]]]:
        start = time.perf_counter()
        try:
            with self._backend.load() as loaded:
                yield loaded
        finally:
            self._observe("load", time.perf_counter() - start)

    def tail(self, position: Commit, limit: int) -> Tail:
        return self._timed("tail", self._backend.tail, position, limit)

    def history(self, first: int, last: int, limit: int) -> Page:
        return self._timed("history", self._backend.history, first, last, limit)

    def values(self, ids: Sequence[RowId]) -> Values:
        values = self._timed("values", self._backend.values, ids)
        self.values_fetched += len(values.found)
        return values

    def leases(self) -> Sequence[Lease]:
        return self._timed("leases", self._backend.leases)

    def keep_alive(self, ids: Sequence[int]) -> set[int]:
        return self._timed("keep_alive", self._backend.keep_alive, ids)

    def expire(self, limit: int) -> Sequence[int]:
        return self._timed("expire", self._backend.expire, limit)

    def promote(self) -> None:
        self._timed("promote", self._backend.promote)

    def auth(self) -> AuthState:
        return self._timed("auth", self._backend.auth)

    def alarms(self) -> Sequence[Alarm]:
        return self._timed("alarms", self._backend.alarms)

    def prune(self, pruned: int, ids: Sequence[RowId]) -> None:
        self._timed("prune", self._backend.prune, pruned, ids)

    def heartbeat(self, me: Member) -> Sequence[Member]:
        return self._timed("heartbeat", self._backend.heartbeat, me)

    def size(self) -> Size:
        return self._timed("size", self._backend.size)

    def defragment(self) -> None:
        self._timed("defragment", self._backend.defragment)

    def listen(self, wake: Callable[[], None]) -> Closeable | None:
        return self._backend.listen(wake)

    def close(self) -> None:
        self._backend.close()

    def _timed(self, name: str, call: Callable[[*Ts], T], *args: *Ts) -> T:
        start = time.perf_counter()
        try:
            return call(*args)
        finally:
            self._observe(name, time.perf_counter() - start)
