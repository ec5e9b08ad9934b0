"""What every backend does to keep the log small, and leases and members where servers share it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from datastore.shim.backends.api import (
    Appended,
    Backend,
    BackendError,
    Commit,
    Diverged,
    Kinds,
    Member,
    Moved,
    Tail,
    Unavailable,
    to_row_id,
)
from tests.contract.backend.conftest import Place
from tests.support import batches


def test_prune_takes_rows_and_raises_pruned(backend: Backend) -> None:
    head = batches.fill(backend, [[b"a"], [b"a"], [b"a"]])
    head = batches.commit(backend, batches.compact(head, 4))
    backend.prune(4, [to_row_id(2, 0), to_row_id(3, 0)])
    assert backend.head() == head._replace(pruned=4)
    page = backend.history(2, 4, 10)
    assert page.pruned == 4
    assert [row.meta.id for row in page.rows] == [to_row_id(4, 0)]
    assert backend.values([to_row_id(2, 0), to_row_id(4, 0)]) == (4, {to_row_id(4, 0): b"a"}, 2)


def test_an_append_after_a_prune_knows_what_was_pruned(backend: Backend) -> None:
    head = batches.commit(backend, batches.compact(batches.fill(backend, [[b"a"]] * 3), 3))
    backend.prune(3, [to_row_id(2, 0)])
    assert batches.commit(backend, batches.empty(head)).pruned == 3


def test_prune_of_nothing_raises_pruned_and_never_lowers_it(backend: Backend) -> None:
    batches.commit(backend, batches.compact(batches.fill(backend, [[b"a"]] * 3), 3))
    backend.prune(3, [])
    backend.prune(2, [to_row_id(99, 0)])
    assert backend.head().pruned == 3


def test_prune_above_the_compacted_revision_is_a_mistake(backend: Backend) -> None:
    batches.fill(backend, [[b"a"]])
    with pytest.raises(ValueError, match="cannot prune 2 above compacted -1"):
        backend.prune(2, [to_row_id(2, 0)])
    assert len(backend.history(2, 2, 10).rows) == 1


def test_recent_commits_survive_a_prune(backend: Backend) -> None:
    head = batches.fill(backend, [[b"a"]] * 20)
    batches.commit(backend, batches.compact(head, 20))
    backend.prune(20, [to_row_id(revision, 0) for revision in range(2, 20)])
    assert backend.commit(1) is not None


def test_defragment_gives_space_back(backend: Backend) -> None:
    names = [b"%d" % number + bytes(500) for number in range(2000)]
    head = batches.fill(backend, [names])
    batches.commit(backend, batches.compact(head, 2))
    before = backend.size()
    backend.prune(2, [to_row_id(2, sub) for sub in range(1, 2000)])
    backend.defragment()
    after = backend.size()
    assert after.total < before.total / 4
    assert after.in_use <= after.total
    assert len(backend.history(2, 2, 10).rows) == 1


def test_a_closed_store_is_not_pruned(place: Place) -> None:
    backend = place.connect()
    head = backend.open()
    batches.commit(backend, batches.compact(head, 1))
    backend.close()
    with pytest.raises(Unavailable):
        backend.prune(1, [])


def test_a_sole_server_keeps_deadlines_and_turns_to_itself(sole_place: Place) -> None:
    backend = sole_place.connect()
    batches.commit(backend, batches.grant(backend.open(), (1, 10)))
    assert [(lease.remaining, lease.expired) for lease in backend.leases()] == [(None, False)]
    for call in (
        lambda: backend.keep_alive([1]),
        lambda: backend.expire(10),
        backend.promote,
        lambda: backend.turn().__enter__(),
    ):
        with pytest.raises(BackendError, match="for shared stores"):
            call()
    me = Member(1, "me", ("http://127.0.0.1:1",), 5)
    assert list(backend.heartbeat(me)) == [me]
    assert backend.listen(lambda: None) is None
    backend.close()


def test_a_lease_runs_by_the_database_clock(shared_place: Place, shared: Backend) -> None:
    """T49: servers that share a database need not agree on the time."""
    batches.commit(shared, batches.grant(shared.head(), (1, 1000)))
    shared_place.clock.advance(400)
    (lease,) = shared.leases()
    assert lease.remaining == pytest.approx(600, abs=shared_place.clock.slack)
    assert not lease.expired


def test_a_keepalive_renews_what_lives(shared_place: Place, shared: Backend) -> None:
    head = batches.commit(shared, batches.grant(shared.head(), (1, 1000), (2, 500)))
    shared_place.clock.advance(500)
    assert shared.keep_alive([1, 2, 3]) == {1}
    left = [lease.remaining for lease in shared.leases()]
    assert left == pytest.approx([1000, 0], abs=shared_place.clock.slack)
    assert shared.head() == head


def test_expiry_marks_what_is_overdue_and_a_mark_stays(
    shared_place: Place, shared: Backend, other: Backend
) -> None:
    batches.commit(shared, batches.grant(shared.head(), (1, 1000), (2, 500), (3, 500)))
    assert list(shared.expire(10)) == []
    shared_place.clock.advance(600)
    assert len(shared.expire(1)) == 1
    assert list(other.expire(10)) == [2, 3]
    assert other.keep_alive([2, 3]) == set()
    other.promote()
    assert [lease.id for lease in shared.leases() if lease.expired] == [2, 3]


def test_promote_gives_every_lease_its_full_time(shared_place: Place, shared: Backend) -> None:
    batches.commit(shared, batches.grant(shared.head(), (1, 1000)))
    shared_place.clock.advance(6000)
    shared.promote()
    assert list(shared.expire(10)) == []
    (lease,) = shared.leases()
    assert lease.remaining == pytest.approx(1000, abs=shared_place.clock.slack)


def test_members_are_those_seen_lately(
    shared_place: Place, shared: Backend, other: Backend
) -> None:
    one, two = Member(1, "one", ("a", "b"), 5), Member(2, "two", (), 6)
    assert list(shared.heartbeat(one)) == [one]
    assert list(other.heartbeat(two)) == [one, two]
    shared_place.clock.advance(3600)
    assert list(other.heartbeat(two._replace(horizon=9))) == [two._replace(horizon=9)]


def test_a_turn_reads_and_appends_and_excludes_others(shared: Backend, other: Backend) -> None:
    start = shared.commit(0)
    assert start is not None
    begun = threading.Event()

    def wait_for_the_turn() -> Tail:
        begun.set()
        with other.turn() as turn:
            return turn.tail(start, 10)

    with ThreadPoolExecutor(1) as pool:
        with shared.turn() as turn:
            tail = turn.tail(start, 10)
            waiting = pool.submit(wait_for_the_turn)
            begun.wait()
            turn.append(batches.keys(tail.head, batches.put(2)))
        assert waiting.result().head.revision == 2


def test_an_append_in_a_turn_is_compared_all_the_same(shared: Backend, other: Backend) -> None:
    start = shared.commit(0)
    assert start is not None
    with shared.turn() as turn:
        tail = turn.tail(start, 10)
        outcome = other.append(batches.empty(tail.head))
        if isinstance(outcome, Moved):  # here the lock keeps everybody from appending
            assert isinstance(turn.append(batches.empty(tail.head)), Appended)
            return
        head = outcome.head
        outcome = turn.append(batches.keys(tail.head, batches.put(2)))
    assert outcome == Moved(head)


def test_the_tail_of_a_turn_is_verified(shared: Backend, other: Backend) -> None:
    batches.fill(other, [[b"a"]])
    with pytest.raises(Diverged), shared.turn() as turn:
        turn.tail(Commit(1, 2, b"x" * 16, Kinds.LOG), 10)


def test_a_turn_ends_with_an_error(shared: Backend, other: Backend) -> None:
    start = shared.commit(0)
    assert start is not None
    with pytest.raises(KeyError), shared.turn() as turn:
        turn.tail(start, 10)
        raise KeyError
    with other.turn() as turn:
        assert turn.tail(start, 10).head.change == 0
