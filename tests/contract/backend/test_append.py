"""What every backend does when a batch is appended, and how a batch's fate is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from datastore.shim.backends.api import (
    Alarm,
    Appended,
    AuthState,
    Backend,
    Kinds,
    Moved,
    NotReady,
    Unavailable,
)
from tests.contract.backend.conftest import Place
from tests.support import batches


def test_an_empty_store_is_at_change_0_and_revision_1(backend: Backend) -> None:
    head = backend.head()
    assert (head.change, head.revision, head.compacted, head.pruned) == (0, 1, -1, -1)
    assert 0 <= head.cluster_id < 1 << 64


def test_open_returns_the_head(place: Place) -> None:
    backend = place.connect()
    assert backend.open() == backend.head()
    backend.close()


def test_commit_0_is_the_empty_store(backend: Backend) -> None:
    assert backend.commit(0) == (0, 1, bytes(16), Kinds.NONE)


def test_an_append_moves_the_head_by_one_change(backend: Backend) -> None:
    before = backend.head()
    batch = batches.keys(before, batches.put(2), batches.put(3), batches.put(3, 1, b"other"))
    after = batches.commit(backend, batch)
    assert after == before._replace(change=1, revision=3) == backend.head()
    assert backend.commit(1) == (1, 3, batch.batch, Kinds.LOG)


def test_an_empty_batch_moves_the_change_and_not_the_revision(backend: Backend) -> None:
    head = batches.commit(backend, batches.empty(backend.head()))
    assert (head.change, head.revision) == (1, 1)


def test_a_batch_evaluated_at_an_older_change_is_not_written(backend: Backend) -> None:
    start = backend.head()
    head = batches.commit(backend, batches.keys(start, batches.put(2)))
    late = batches.keys(start, batches.put(2, 0, b"late"))
    assert batches.moved(backend, late) == head == backend.head()
    assert backend.commit(2) is None
    assert backend.history(1, 9, 10).rows == [batches.put(2)]


def test_a_batch_that_expects_a_later_change_is_not_written(backend: Backend) -> None:
    head = backend.head()
    assert batches.moved(backend, batches.empty(head._replace(change=7))) == head
    assert backend.commit(8) is None


def test_a_batch_on_another_history_that_has_reached_its_number_is_not_written(
    shared: Backend,
) -> None:
    head = batches.fill(shared, [[b"a"], [b"b"]])
    commit = shared.commit(head.change)
    assert commit is not None
    stranger = batches.keys(head, batches.put(4))._replace(base=b"x" * 16)
    assert batches.moved(shared, stranger) == head
    assert shared.head() == head
    fitting = batches.keys(head, batches.put(4))._replace(base=commit.batch)
    assert batches.commit(shared, fitting).change == head.change + 1


def test_a_batch_is_appended_once(backend: Backend) -> None:
    batch = batches.keys(backend.head(), batches.put(2))
    head = batches.commit(backend, batch)
    assert batches.moved(backend, batch) == head


def test_a_commit_that_is_not_there_is_none(backend: Backend) -> None:
    assert backend.commit(1) is None
    assert backend.commit(1 << 40) is None


def test_a_sync_that_is_left_over_runs_in_a_thread(backend: Backend) -> None:
    head = backend.head()
    with ThreadPoolExecutor(1) as pool:
        for revision in range(2, 50):
            outcome = backend.append(batches.keys(head, batches.put(revision)))
            assert isinstance(outcome, Appended)
            if outcome.sync is not None:
                pool.submit(outcome.sync).result()
            head = outcome.head
    assert backend.head() == head


def test_keys_and_values_are_any_bytes(backend: Backend) -> None:
    names = [b"\0", bytes(range(256)), b"\xff" * 300, "kéy".encode(), b"'; --", b"a\0b"]
    rows = [batches.put(2, sub, name, name[::-1]) for sub, name in enumerate(names)]
    rows.append(batches.put(2, len(rows), b"nothing", b""))
    batches.commit(backend, batches.keys(backend.head(), *rows))
    assert backend.history(2, 2, 100).rows == rows


def test_a_large_value_comes_back(backend: Backend) -> None:
    row = batches.put(2, 0, b"large", bytes(range(256)) * 8192)
    batches.commit(backend, batches.keys(backend.head(), row))
    assert backend.values([row.meta.id]) == (-1, {row.meta.id: row.value}, 1)


def test_leases_are_granted_and_dropped(backend: Backend) -> None:
    head = batches.commit(backend, batches.grant(backend.head(), (7, 60), (2**62, 9_000_000_000)))
    assert [(lease.id, lease.ttl) for lease in backend.leases()] == [(7, 60), (2**62, 9 * 10**9)]
    batches.commit(backend, batches.revoke(head, 7, 12345))
    assert [lease.id for lease in backend.leases()] == [2**62]


def test_a_lease_that_one_batch_revokes_and_grants_again_is_there(backend: Backend) -> None:
    head = batches.commit(backend, batches.grant(backend.head(), (7, 60)))
    again = batches.grant(head, (7, 90))._replace(dropped=[7])
    batches.commit(backend, again)
    assert [(lease.id, lease.ttl) for lease in backend.leases()] == [(7, 90)]


def test_rows_keep_their_lease_and_versions(backend: Backend) -> None:
    meta = batches.put(2).meta._replace(lease=2**62, version=5)
    row = batches.put(2)._replace(meta=meta)
    batches.commit(backend, batches.keys(backend.head(), row, batches.tombstone(3)))
    assert backend.history(2, 3, 10).rows == [row, batches.tombstone(3)]


def test_alarms_are_replaced_as_a_whole(backend: Backend) -> None:
    assert list(backend.alarms()) == []
    alarms = [Alarm(2**64 - 1, 1), Alarm(3, 2)]
    batch = batches.empty(backend.head())._replace(kinds=Kinds.ALARM, alarms=alarms)
    head = batches.commit(backend, batch)
    assert list(backend.alarms()) == alarms
    batches.commit(backend, batches.empty(head)._replace(kinds=Kinds.ALARM, alarms=[]))
    assert list(backend.alarms()) == []


def test_auth_is_replaced_as_a_whole(backend: Backend) -> None:
    assert backend.auth() == AuthState({})
    auth = AuthState({(0, b""): b"on", (1, b"root"): b"\0\1"})
    batch = batches.empty(backend.head())._replace(kinds=Kinds.AUTH, auth=auth)
    head = batches.commit(backend, batch)
    assert backend.auth() == auth
    less = AuthState({(1, b"root"): b"changed"})
    batches.commit(backend, batches.empty(head)._replace(kinds=Kinds.AUTH, auth=less))
    assert backend.auth() == less


def test_compaction_is_part_of_the_head(backend: Backend) -> None:
    head = batches.fill(backend, [[b"a"], [b"b"]])
    head = batches.commit(backend, batches.compact(head, 2))
    assert head.compacted == 2 == backend.head().compacted
    assert head.pruned == -1
    assert batches.commit(backend, batches.empty(head)).compacted == 2


def test_everything_is_there_after_opening_again(place: Place) -> None:
    backend = place.connect()
    backend.open()
    head = batches.fill(backend, [[b"a", b"b"], [b"a"]])
    head = batches.commit(backend, batches.grant(head, (5, 30)))
    head = batches.commit(backend, batches.compact(head, 2))
    commits = [backend.commit(change) for change in range(head.change + 1)]
    backend.close()
    again = place.connect()
    assert again.open() == head
    assert [again.commit(change) for change in range(head.change + 1)] == commits
    assert len(again.history(1, 9, 100).rows) == 3
    assert [lease.id for lease in again.leases()] == [5]
    assert batches.commit(again, batches.empty(head)).change == head.change + 1
    again.close()


def test_a_closed_store_is_unavailable(place: Place) -> None:
    backend = place.connect()
    head = backend.open()
    backend.close()
    backend.close()
    with pytest.raises(Unavailable, match="closed"):
        backend.head()
    with pytest.raises(Unavailable, match="closed"):
        backend.append(batches.empty(head))


def test_a_store_that_was_never_opened_is_unavailable_and_can_be_closed(place: Place) -> None:
    backend = place.connect()
    with pytest.raises(Unavailable, match="closed"):
        backend.head()
    backend.close()


def test_a_second_server_is_refused_until_the_first_has_stopped(sole_place: Place) -> None:
    first, second = sole_place.connect(), sole_place.connect()
    first.open()
    assert not first.shared
    with pytest.raises(NotReady, match="in use"):
        second.open()
    assert first.head().change == 0
    first.close()
    second.open()
    second.close()


def test_of_many_writers_exactly_one_wins_each_change(shared: Backend, other: Backend) -> None:
    backends = [shared, other]

    def write(number: int) -> int:
        backend, won = backends[number % 2], 0
        while won < 20:
            head = backend.head()
            row = batches.put(head.revision + 1, 0, b"%d" % number)
            outcome = backend.append(batches.keys(head, row))
            won += not isinstance(outcome, Moved)
        return won

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4))) == 80
    assert shared.head() == other.head()
    assert (shared.head().change, shared.head().revision) == (80, 81)
    assert [row.meta.id >> 20 for row in other.history(2, 81, 100).rows] == list(range(2, 82))
