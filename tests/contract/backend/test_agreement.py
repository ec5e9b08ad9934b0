"""Random programs run on the memory backend and on another, which must agree on every answer."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from datastore.shim.backends.api import Backend, Batch, Commit, Kinds, Page, Tail, to_row_id
from datastore.shim.backends.limits import NO_BATCH
from datastore.shim.backends.memory import MemoryBackend
from datastore.shim.backends.postgresql import PostgresqlBackend
from datastore.shim.backends.sqlite import SQLiteBackend
from tests.support import batches
from tests.support.databases import PostgresqlServer, database_on
from tests.support.quick_disk import quick_directory

small = st.integers(1, 6)


class TwoBackends(RuleBasedStateMachine):
    """The memory backend is the model."""

    def __init__(self, connect: Callable[[], Backend], *, shared: bool) -> None:
        super().__init__()
        self.connect = connect
        self.model = MemoryBackend(shared=shared)
        self.head = self.model.open()
        self.positions = [Commit(0, 1, NO_BATCH, Kinds.NONE)]
        self.backend = connect()
        self.backend.open()

    def teardown(self) -> None:
        self.backend.close()

    def _append(self, batch: Batch) -> None:
        self.head = batches.commit(self.model, batch)
        found = batches.commit(self.backend, batch)
        assert found == self.head._replace(cluster_id=found.cluster_id)
        commit = self.model.commit(self.head.change)
        assert commit is not None
        self.positions.append(commit)

    @rule(
        keys=st.lists(st.lists(st.sampled_from([b"a", b"b", b"c", b""]), min_size=1), max_size=3)
    )
    def put(self, keys: list[list[bytes]]) -> None:
        rows = [
            batches.put(self.head.revision + 1 + offset, sub, key, key * 3)
            for offset, names in enumerate(keys)
            for sub, key in enumerate(names)
        ]
        self._append(batches.keys(self.head, *rows))

    @rule(gap=st.integers(1, 10**9))
    def delete_after_a_gap(self, gap: int) -> None:
        self._append(batches.keys(self.head, batches.tombstone(self.head.revision + gap)))

    @rule(lease=small, ttl=st.integers(1, 9_000_000_000))
    def grant(self, lease: int, ttl: int) -> None:
        self._append(batches.grant(self.head, (lease, ttl)))

    @rule(lease=small)
    def revoke(self, lease: int) -> None:
        self._append(batches.revoke(self.head, lease))

    @rule()
    def compact(self) -> None:
        self._append(batches.compact(self.head, self.head.revision))

    @rule(stale=st.integers(-3, 3).filter(bool))
    def append_elsewhere(self, stale: int) -> None:
        batch = batches.empty(self.head)._replace(expected=self.head.change + stale)
        assert batches.moved(self.backend, batch).change == self.head.change

    @precondition(lambda self: self.head.compacted > 1)
    @rule(data=st.data())
    def prune(self, data: st.DataObject) -> None:
        rows = self.model.history(1, self.head.compacted, 10**6).rows
        ids = [row.meta.id for row in rows if data.draw(st.booleans())]
        self.model.prune(self.head.compacted, ids)
        self.backend.prune(self.head.compacted, ids)
        self.head = self.model.head()

    @rule()
    def open_again(self) -> None:
        self.backend.close()
        self.backend = self.connect()
        self.backend.open()

    @rule(data=st.data(), limit=small)
    def tail(self, data: st.DataObject, limit: int) -> None:
        position = data.draw(st.sampled_from(self.positions))
        ours, theirs = self.backend.tail(position, limit), self.model.tail(position, limit)
        assert ours.commits[: len(theirs.commits)] == theirs.commits[: len(ours.commits)]
        assert _whole(ours)
        assert _whole(theirs)
        assert bool(ours.commits) == bool(theirs.commits)

    @rule(first=st.integers(1, 12), length=st.integers(0, 12), limit=small)
    def history(self, first: int, length: int, limit: int) -> None:
        ours = self.backend.history(first, first + length, limit)
        assert ours == Page(*self.model.history(first, first + length, limit))

    @rule(revisions=st.lists(st.integers(1, 20), max_size=8))
    def values(self, revisions: list[int]) -> None:
        ids = [to_row_id(revision, 0) for revision in revisions]
        assert self.backend.values(ids) == self.model.values(ids)

    @invariant()
    def the_state_agrees(self) -> None:
        head = self.backend.head()
        assert head == self.model.head()._replace(cluster_id=head.cluster_id)
        assert _granted(self.backend) == _granted(self.model)
        with self.backend.load() as (_, ours, pages), self.model.load() as (_, theirs, others):
            assert ours == theirs
            assert [m for page in pages for m in page] == [m for page in others for m in page]


def _whole(tail: Tail) -> bool:
    """Whether every row belongs to a commit of the page."""
    last = tail.commits[-1].revision if tail.commits else 0
    return all(row.meta.id < to_row_id(last + 1, 0) for row in tail.rows)


def _granted(backend: Backend) -> list[tuple[int, int, bool]]:
    return [(lease.id, lease.ttl, lease.expired) for lease in backend.leases()]


STEPS = settings(max_examples=max(10, settings().max_examples // 5), stateful_step_count=20)


def test_sqlite_agrees() -> None:
    numbers = itertools.count()
    with quick_directory() as directory:

        class OnSQLite(TwoBackends):
            def __init__(self) -> None:
                file = directory / f"{next(numbers)}.db"
                super().__init__(lambda: SQLiteBackend(file), shared=False)

        run_state_machine_as_test(OnSQLite, settings=STEPS)


def test_postgresql_agrees(servers: Callable[[str], PostgresqlServer]) -> None:
    numbers = itertools.count()
    server = servers("postgresql")
    with database_on(server) as database:

        class OnPostgresql(TwoBackends):
            def __init__(self) -> None:
                target = server.target(database, search_path=f"agree{next(numbers)}")
                super().__init__(lambda: PostgresqlBackend(target), shared=True)

        run_state_machine_as_test(OnPostgresql, settings=STEPS)
