"""The faults of the memory backend are those of databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from datastore.shim.backends.api import (
    Alarm,
    Appended,
    BackendError,
    Batch,
    Corrupt,
    Diverged,
    Full,
    Kinds,
    Moved,
    OutcomeUnknown,
    Unavailable,
    to_row_id,
)
from datastore.shim.backends.memory import Fault, Faults, Fence, Log, MemoryBackend, Script
from tests.support import batches


def server(log: Log, *appends: Fault | None, fences: tuple[Fence, ...] = ()) -> MemoryBackend:
    backend = MemoryBackend(log, Script(appends, fences), shared=True)
    backend.open()
    return backend


def lost(backend: MemoryBackend, *rows: bytes) -> Batch:
    """Append a batch whose reply is lost; return it."""
    head = backend.head()
    batch = batches.keys(head, *(batches.put(head.revision + 1, 0, key) for key in rows))
    with pytest.raises(OutcomeUnknown):
        backend.append(batch)
    return batch


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.UNAVAILABLE, Unavailable),
        (Fault.FULL, Full),
        (Fault.CORRUPT, Corrupt),
        (Fault.LOST_NOT_APPLIED, OutcomeUnknown),
    ],
)
def test_refused_appends_leave_nothing(fault: Fault, error: type[BackendError]) -> None:
    log = Log()
    backend = server(log, fault)
    with pytest.raises(error):
        backend.append(batches.empty(backend.head()))
    assert log.head.change == 0
    batches.commit(backend, batches.empty(backend.head()))


def test_a_lost_reply_may_belong_to_an_applied_batch() -> None:
    log = Log()
    backend = server(log, Fault.LOST_APPLIED)
    batch = lost(backend, b"key")
    commit = backend.commit(1)
    assert commit is not None
    assert commit.batch == batch.batch


def test_an_append_may_be_overtaken_or_asked_to_try_again() -> None:
    log = Log()
    backend = server(log, Fault.DEADLOCK, Fault.OVERTAKEN)
    start = backend.head()
    assert batches.moved(backend, batches.empty(start)) == start
    assert batches.moved(backend, batches.empty(start)).change == 1


def test_a_zombie_commits_when_it_wakes_up() -> None:
    log = Log()
    backend = server(log, Fault.ZOMBIE)
    batch = lost(backend, b"key")
    assert log.zombies == [batch]
    assert backend.commit(1) is None
    assert log.release_zombies() == 1
    commit = backend.commit(1)
    assert commit is not None
    assert commit.batch == batch.batch


def test_a_zombie_that_no_longer_fits_never_commits() -> None:
    log = Log()
    backend = server(log, Fault.ZOMBIE)
    lost(backend, b"key")
    log.interlope()
    assert log.release_zombies() == 0
    assert log.head.change == 1
    assert not log.rows


def test_a_killed_zombie_never_commits() -> None:
    log = Log()
    lost(server(log, Fault.ZOMBIE), b"key")
    log.kill_zombies()
    assert log.release_zombies() == 0


@pytest.mark.parametrize(
    ("fence", "outcome", "rows"),
    [(Fence.COMMITS, Moved, 1), (Fence.DIES, Appended, 0), (Fence.OVERTAKEN, Appended, 0)],
)
def test_a_fence_decides_a_zombie(fence: Fence, outcome: type, rows: int) -> None:
    log = Log()
    backend = server(log, Fault.ZOMBIE, fences=(fence,))
    lost(backend, b"key")
    assert isinstance(backend.append(batches.empty(backend.head())), outcome)
    log.release_zombies()
    assert len(log.rows) == rows
    assert log.head.change == 1


def test_a_fence_can_be_stuck_behind_a_zombie() -> None:
    log = Log()
    backend = server(log, Fault.ZOMBIE, fences=(Fence.BLOCKS,))
    lost(backend, b"key")
    with pytest.raises(OutcomeUnknown):
        backend.append(batches.empty(backend.head()))
    assert isinstance(backend.append(batches.empty(log.head)), Moved)


def test_a_lost_tail_takes_back_all_that_later_commits_did() -> None:
    log = Log()
    backend = server(log)
    head = batches.commit(backend, batches.grant(backend.head(), (1, 10), (2, 10)))
    head = batches.fill(backend, [[b"a"]])
    kept = backend.commit(head.change)
    alarms = batches.empty(head)._replace(kinds=Kinds.ALARM, alarms=[Alarm(1, 1)])
    later = batches.commit(backend, alarms)
    later = batches.commit(backend, batches.revoke(later, 1))
    later = batches.commit(backend, batches.grant(later, (3, 10)))
    later = batches.fill(backend, [[b"b"]])
    gone = backend.commit(later.change)
    assert kept is not None
    assert gone is not None
    log.lose_tail(head.change)
    assert backend.head() == head
    assert [lease.id for lease in backend.leases()] == [1, 2]
    assert list(backend.alarms()) == []
    assert [row.value for row in backend.history(1, 9, 9).rows] == [b"a"]
    assert backend.tail(kept, 9).commits == []
    with pytest.raises(Diverged):
        backend.tail(gone, 9)
    batches.fill(backend, [[b"x"]] * 5)
    with pytest.raises(Diverged):
        backend.tail(gone, 9)


def test_a_prune_between_two_pages_shows_in_the_second() -> None:
    log = Log()

    class Prune(Faults):
        pages = 0

        def read(self, operation: str) -> Fault | None:
            self.pages += operation == "history"
            if self.pages == 2:
                log.prune(3, [to_row_id(2, 0), to_row_id(3, 0)])
            return None

    backend = MemoryBackend(log, Prune(), shared=True)
    backend.open()
    batches.commit(backend, batches.compact(batches.fill(backend, [[b"a"]] * 3), 3))
    first = backend.history(2, 4, 1)
    second = backend.history(3, 4, 1)
    assert (first.pruned, len(first.rows)) == (-1, 1)
    assert (second.pruned, [row.meta.id for row in second.rows]) == (3, [to_row_id(4, 0)])


def test_a_prune_between_two_pages_of_a_load_does_not_show() -> None:
    log = Log()
    pruned: list[str] = []

    class Prune(Faults):
        def between_pages(self, operation: str) -> None:
            pruned.append(operation)
            log.prune(2, [to_row_id(2, sub) for sub in range(1500)])

    backend = MemoryBackend(log, Prune(), shared=True)
    backend.open()
    head = batches.fill(backend, [[b"%d" % number for number in range(1500)]])
    batches.commit(backend, batches.compact(head, 2))
    with backend.load() as (_, _, pages):
        assert sum(map(len, pages)) == 1500
    assert pruned == ["load"]
    assert not log.rows


@pytest.mark.parametrize(
    "call",
    [
        MemoryBackend.head,
        MemoryBackend.leases,
        MemoryBackend.alarms,
        MemoryBackend.size,
        lambda backend: backend.tail(backend.log.commits[0], 1),
        lambda backend: backend.values([1]),
    ],
    ids=["head", "leases", "alarms", "size", "tail", "values"],
)
def test_reads_can_fail(call: Callable[[MemoryBackend], object]) -> None:
    class Away(Faults):
        away = False

        def read(self, operation: str) -> Fault | None:
            return Fault.UNAVAILABLE if self.away else None

    backend = MemoryBackend(Log(), Away(), shared=True)
    backend.open()
    call(backend)
    Away.away = True
    with pytest.raises(Unavailable):
        call(backend)


def test_a_deferred_sync_can_fail() -> None:
    class Broken(Faults):
        def sync(self) -> Fault | None:
            return Fault.CORRUPT

    backend = MemoryBackend(Log(), Broken(), deferred_sync=True)
    outcome = backend.append(batches.empty(backend.open()))
    assert isinstance(outcome, Appended)
    assert outcome.sync is not None
    with pytest.raises(Corrupt):
        outcome.sync()


def test_a_malformed_batch_is_a_mistake_of_the_server() -> None:
    backend = server(Log())
    head = batches.fill(backend, [[b"a"]])
    for rows in ([batches.put(2)], [batches.put(4), batches.put(3)]):
        with pytest.raises(ValueError, match="out of order"):
            backend.append(batches.keys(head, *rows))
    with pytest.raises(ValueError, match="does not cover"):
        backend.append(batches.keys(head, batches.put(3))._replace(revision=2))
    assert backend.head() == head
