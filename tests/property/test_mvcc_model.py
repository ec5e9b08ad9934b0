"""The store does what a dictionary for each revision would do, whatever is asked of it."""

from __future__ import annotations

from functools import lru_cache

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from datastore.shim import errors
from datastore.shim.backends.api import Alarm, Head, Lease, to_revision
from datastore.shim.mvcc import ops
from datastore.shim.mvcc.check import check
from datastore.shim.mvcc.compaction import count_retained, is_retained
from datastore.shim.mvcc.overlay import Overlay
from datastore.shim.mvcc.store import MissingValues, Store
from tests.support.mvcc_model import Model

KEYS = [b"\0", b"a", b"a\0", b"ab", b"b", b"b\xff", b"\xff", b"\xff\xff"]
ENDS = [b"", b"", b"\0", *KEYS[1:], b"c", b"\xff\xff\xff"]
LEASES = [1, -5, 2**63 - 1]
keys, ends = st.sampled_from(KEYS), st.sampled_from(ENDS)
values = st.sampled_from([b"", b"x", b"yy", b"z" * 30])
flags = st.booleans()
rarely = st.sampled_from([False] * 4 + [True])


def is_sound(txn: ops.Txn) -> bool:
    try:
        check(txn)
    except errors.DuplicateKey:
        return False
    return True


class Requests:
    """Strategies of requests that make sense about a revision."""

    def __init__(self, now: int) -> None:
        near = st.integers(max(now - 8, -1), now + 2)
        bounds = st.one_of(*[st.just(0)] * 6, near)
        self.ranges = st.builds(
            ops.Range,
            key=keys,
            end=ends,
            limit=st.sampled_from([0, 0, 1, 2, 3, -1]),
            revision=st.one_of(st.just(0), st.just(0), near),
            sort_order=st.sampled_from(ops.SortOrder),
            sort_target=st.one_of(st.just(ops.SortTarget.KEY), st.sampled_from(ops.SortTarget)),
            serializable=flags,
            keys_only=rarely,
            count_only=rarely,
            min_mod=bounds,
            max_mod=bounds,
            min_create=bounds,
            max_create=bounds,
        )
        self.puts = st.builds(
            ops.Put,
            key=keys,
            value=values,
            lease=st.sampled_from([0, 0, 0, *LEASES]),
            prev_kv=flags,
            ignore_value=rarely,
            ignore_lease=rarely,
        ).map(sound_put)
        self.deletes = st.builds(ops.DeleteRange, key=keys, end=ends, prev_kv=flags)
        results = st.integers(0, 4)
        numbers = st.one_of(st.sampled_from([0, 0, 1, *LEASES]), near)
        targets = st.sampled_from([t for t in ops.CompareTarget if t.name != "VALUE"])
        value = st.just(ops.CompareTarget.VALUE)
        self.compares = st.one_of(
            st.builds(ops.Compare, targets, results, keys, numbers, ends),
            st.builds(ops.Compare, value, results, keys, values, ends),
        )
        inner = st.one_of(self.puts, self.deletes, self.ranges)
        nested = st.recursive(inner, self.txns, max_leaves=5)
        self.read_txns = self.txns(self.ranges)
        txn = self.txns(nested).filter(is_sound)
        self.writes = st.one_of(
            self.puts,
            self.puts,
            self.deletes,
            txn,
            txn,
            st.builds(ops.LeaseGrant, st.sampled_from(LEASES), st.integers(1, 60)),
            st.builds(ops.LeaseRevoke, st.sampled_from(LEASES)),
            st.builds(ops.Compact, near),
        )
        self.batches = st.lists(self.writes, min_size=1, max_size=5)

    def txns(self, inner):
        branch = st.lists(inner, max_size=3)
        return st.builds(ops.Txn, st.lists(self.compares, max_size=2), branch, branch)


requests_at = lru_cache(None)(Requests)
alarm_sets = st.lists(st.builds(Alarm, st.just(1), st.integers(1, 2)), min_size=1, max_size=2)


def sound_put(op: ops.Put) -> ops.Put:
    value, lease = b"" if op.ignore_value else op.value, 0 if op.ignore_lease else op.lease
    return op._replace(value=value, lease=lease)


def plain(result):
    """Any answer as tuples all the way down, with the name of what it is."""
    if isinstance(result, list | tuple):
        return type(result).__name__.replace("list", "tuple"), *map(plain, result)
    return result


def outcome(call):
    try:
        return plain(call())
    except errors.ShimError as error:
        return type(error)


class StoreAndModel(RuleBasedStateMachine):
    """A store fed through overlays, the rows it asks to keep, and the model beside it."""

    @initialize(cache_bytes=st.sampled_from([0, 200, 1 << 20]))
    def start(self, cache_bytes):
        self.store = Store(cache_bytes=cache_bytes)
        self.cache_bytes = cache_bytes
        self.rows = {}
        self.model = Model()

    def fetching(self, call):
        held = {}
        while True:
            try:
                return call(held)
            except MissingValues as missing:
                held |= {row: self.rows[row].value for row in missing.ids}

    @property
    def requests(self):
        return requests_at(self.model.revision)

    @rule(data=st.data())
    def write(self, data):
        self.evaluate(data.draw(self.requests.batches))

    @rule(data=st.data(), alarms=alarm_sets)
    def write_under_alarms(self, data, alarms):
        batch = data.draw(self.requests.batches)
        self.evaluate([*(ops.SetAlarm(alarm, active=True) for alarm in alarms), *batch])
        self.evaluate([*batch, *(ops.SetAlarm(alarm, active=False) for alarm in alarms)])

    def evaluate(self, batch):
        expected = [outcome(lambda write=write: self.model.write(write)) for write in batch]

        def attempt(held):
            overlay = Overlay(self.store, held)
            answers = [outcome(lambda write=write: overlay.evaluate(write)) for write in batch]
            return overlay, answers

        overlay, answers = self.fetching(attempt)
        assert answers == expected
        self.apply(overlay)

    def apply(self, overlay):
        applied = overlay.applied()
        assert overlay.revision == self.model.revision
        assert [row.meta for row in overlay.rows] == [v.meta for v in applied.versions]
        assert bool(overlay.kinds) is not overlay.empty
        self.rows |= {row.meta.id: row for row in overlay.rows}
        compacted = self.store.compacted
        for change in self.store.apply(applied):
            version, previous = change
            before = self.model.states[version.mod_revision - 1].get(version.key)
            readable = version.mod_revision - 1 >= compacted
            assert (previous and previous.mod_revision) == (before and readable and before.mod)

    @rule(data=st.data())
    def read(self, data):
        requests = self.requests
        self.compare_read(data.draw(st.one_of(requests.ranges, requests.read_txns)))

    def compare_read(self, op):
        answer = outcome(lambda: self.fetching(lambda held: self.store.read(op, held)))
        assert answer == outcome(lambda: self.model.read(op))

    @rule(back=st.integers(0, 6), key=keys, end=ends, limit=st.integers(0, 4), count=flags)
    def read_back(self, back, key, end, limit, count):
        revision = max(self.model.revision - back, 1)
        self.compare_read(ops.Range(key, end, limit, revision, count_only=count))

    @rule(changes=st.integers(1, 5))
    def tidy(self, changes):
        self.store.tidy(changes)

    @rule(behind=st.integers(0, 3))
    def collect(self, behind):
        for row in self.store.collect(self.model.compacted - behind):
            del self.rows[row]

    @rule()
    def reload(self):
        """A store loaded from the rows is the store that wrote them."""
        old = self.store
        while old.tidy():
            pass
        head = Head(0, old.revision, old.compacted, -1, 1, 1)
        metas = [self.rows[row].meta for row in sorted(self.rows)]
        pages = [metas[at : at + 3] for at in range(0, len(metas), 3)]
        stored = [Lease(x, ttl, None, expired=False) for x, ttl in self.model.leases.items()]
        new = Store.load(head, pages, stored, old.alarms, self.cache_bytes, auth=old.auth)
        assert picture(new) == picture(old)
        assert sorted(new.collect(old.compacted)) == sorted(old.collect(old.compacted))
        assert old.garbage == new.garbage == 0
        kept = {v.id for v in retained(new)}
        self.rows = {row: stored for row, stored in self.rows.items() if row in kept}
        self.store = new

    @invariant()
    def every_retained_revision_reads_as_the_model_does(self):
        if not hasattr(self, "store"):
            return
        model, store = self.model, self.store
        assert (store.revision, store.compacted) == (model.revision, model.compacted)
        assert store.key_count == len(model.states[model.revision])
        for revision in range(max(model.compacted, 1), model.revision + 1):
            state = model.states[revision]
            for key in KEYS:
                version, kv = store.at(key, revision), state.get(key)
                assert (version and version.meta[1:4]) == (
                    kv and (kv.create, kv.version, kv.lease)
                )
        for lease in LEASES:
            info = store.leases.find(lease)
            assert (info is not None) == (lease in model.leases)
            if info is not None:
                now = model.states[model.revision].values()
                assert info.keys == {kv.key for kv in now if kv.lease == lease}

    @invariant()
    def the_rows_that_outlive_the_compaction_are_known_by_number(self):
        """However far tidying and pruning are."""
        if not hasattr(self, "store"):
            return
        index, compacted = self.store.index, self.store.compacted
        metas = [row.meta for row in self.rows.values()]
        kept = [meta for meta in metas if is_retained(index, meta, compacted)]
        graves = [m for m in kept if m.tombstone and to_revision(m.id) == compacted]
        assert len(kept) - len(graves) == count_retained(index, compacted)
        live = {m.key for m in kept if to_revision(m.id) <= compacted and not m.tombstone}
        assert live == self.model.states.get(compacted, {}).keys()

    @invariant()
    def the_cache_keeps_its_bound(self):
        if hasattr(self, "store"):
            assert self.store.cache.bytes <= max(self.cache_bytes, 0)


def retained(store):
    index = store.index
    return [v for key, last in index.latest.items() for v in index.history.get(key) or [last]]


def picture(store):
    index = store.index
    return (
        sorted(v.meta for v in retained(store)),
        sorted(index.history),
        list(index.keys),
        list(index.dead),
        [v.id for v in index.births],
        [v.id for v in index.recent],
        {lease: store.leases.find(lease).keys for lease in sorted(store.leases.ids())},
        store.revision,
        store.compacted,
        store.alarms,
    )


TestStoreAndModel = StoreAndModel.TestCase
TestStoreAndModel.settings = settings(stateful_step_count=15)
