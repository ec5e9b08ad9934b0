"""What every backend returns when the log is read."""

from __future__ import annotations

import threading

import pytest

from datastore.shim.backends.api import (
    PAGE_BYTES,
    Backend,
    Commit,
    Diverged,
    Kinds,
    Page,
    to_revision,
    to_row_id,
)
from tests.support import batches
from tests.support.running import eventually


def test_load_of_an_empty_store_has_no_rows(backend: Backend) -> None:
    with backend.load() as (head, position, pages):
        assert head == backend.head()
        assert position == backend.commit(0)
        assert [meta for page in pages for meta in page] == []


def test_load_gives_every_row_in_order(backend: Backend) -> None:
    head = batches.fill(backend, [[b"%d" % number for number in range(700)]] * 4)
    with backend.load() as (loaded, position, pages):
        metas = [meta for page in pages for meta in page]
    assert loaded == head
    assert position == backend.commit(4)
    assert [meta.id for meta in metas] == [
        to_row_id(revision, sub) for revision in (2, 3, 4, 5) for sub in range(700)
    ]
    assert metas[0] == batches.put(2, 0, b"0").meta


def test_load_is_one_snapshot_while_others_append_and_prune(backend: Backend) -> None:
    head = batches.fill(backend, [[b"%d" % number for number in range(1500)]] * 2)
    with backend.load() as (loaded, _, pages):
        first = next(pages)
        head = batches.commit(backend, batches.compact(head, 3))
        head = batches.commit(backend, batches.keys(head, batches.put(4)))
        backend.prune(3, [to_row_id(2, sub) for sub in range(1500)])
        rest = [meta for page in pages for meta in page]
    assert (loaded.change, loaded.pruned) == (2, -1)
    assert len(first) + len(rest) == 3000


def test_a_load_that_is_given_up_holds_nothing(backend: Backend) -> None:
    batches.fill(backend, [[b"%d" % number for number in range(2500)]])
    with backend.load() as (_, _, pages):
        next(pages)
    with pytest.raises(KeyError), backend.load():
        raise KeyError
    batches.commit(backend, batches.empty(backend.head()))


def test_tail_of_the_last_position_is_empty(backend: Backend) -> None:
    batches.fill(backend, [[b"a"]])
    position = backend.commit(1)
    assert position is not None
    tail = backend.tail(position, 10)
    assert (tail.head, list(tail.commits), list(tail.rows)) == (backend.head(), [], [])


def test_tail_gives_commits_with_all_their_rows(backend: Backend) -> None:
    start = backend.commit(0)
    assert start is not None
    head = batches.fill(backend, [[b"a", b"b"], [b"c"]])
    head = batches.commit(backend, batches.empty(head))
    two = batches.keys(head, batches.put(4), batches.tombstone(5))
    batches.commit(backend, two)
    tail = backend.tail(start, 100)
    assert [commit.change for commit in tail.commits] == [1, 2, 3, 4]
    assert list(tail.commits) == [backend.commit(change) for change in (1, 2, 3, 4)]
    assert [to_revision(row.meta.id) for row in tail.rows] == [2, 2, 3, 4, 5]
    assert tail.rows[-1] == batches.tombstone(5)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7])
def test_pages_of_a_tail_are_whole_commits_and_miss_nothing(backend: Backend, limit: int) -> None:
    position = backend.commit(0)
    head = batches.fill(backend, [[b"a"], [b"a", b"b", b"c"], [b"d"]])
    head = batches.commit(backend, batches.empty(head))
    head = batches.commit(backend, batches.keys(head, batches.put(5), batches.put(6)))
    rows = []
    while position is not None and position.change < head.change:
        tail = backend.tail(position, limit)
        assert tail.commits[0].change == position.change + 1
        assert to_revision(tail.rows[-1].meta.id if tail.rows else 0) <= tail.commits[-1].revision
        rows += tail.rows
        position = tail.commits[-1]
    assert [row.meta.id for row in rows] == [row.meta.id for row in backend.history(1, 9, 99).rows]


def test_tail_of_another_batch_has_diverged(backend: Backend) -> None:
    batches.fill(backend, [[b"a"], [b"b"]])
    with pytest.raises(Diverged):
        backend.tail(Commit(1, 2, b"another batch...", Kinds.LOG), 10)


def test_tail_of_a_position_above_the_head_has_diverged(backend: Backend) -> None:
    batches.fill(backend, [[b"a"]])
    with pytest.raises(Diverged):
        backend.tail(Commit(2, 3, b"lost batch......", Kinds.LOG), 10)


def test_history_of_nothing_is_empty(backend: Backend) -> None:
    batches.fill(backend, [[b"a"]])
    assert backend.history(3, 9, 10) == Page(-1, [], more=False)


def test_history_gives_the_revisions_asked_for_with_values(backend: Backend) -> None:
    batches.fill(backend, [[b"a"], [b"b", b"c"], [b"d"]])
    page = backend.history(3, 3, 10)
    assert [row.value for row in page.rows] == [b"b", b"c"]
    assert not page.more


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_pages_of_history_are_whole_revisions_and_miss_nothing(
    backend: Backend, limit: int
) -> None:
    batches.fill(backend, [[b"a"], [b"b", b"c", b"d"], [b"e"], [b"f", b"g"]])
    first, seen, more = 1, [], True
    while more:
        page = backend.history(first, 5, limit)
        revisions = [to_revision(row.meta.id) for row in page.rows]
        assert min(revisions) >= first
        seen += [row.value for row in page.rows]
        first, more = revisions[-1] + 1, page.more
    assert b"".join(value or b"" for value in seen) == b"abcdefg"


def test_values_are_found_by_row_id(backend: Backend) -> None:
    head = batches.fill(backend, [[b"a", b"b"]])
    batches.commit(backend, batches.keys(head, batches.tombstone(3)))
    ids = [to_row_id(3, 0), to_row_id(2, 1), to_row_id(2, 0), to_row_id(9, 0)]
    assert backend.values(ids) == (-1, {to_row_id(2, 0): b"a", to_row_id(2, 1): b"b"}, 4)
    assert backend.values([]) == (-1, {}, 0)


def test_thousands_of_values_are_found_at_once(backend: Backend) -> None:
    names = [b"%d" % number for number in range(5000)]
    batches.fill(backend, [names])
    ids = [to_row_id(2, sub) for sub in range(5000)]
    page = backend.values(ids)
    assert (list(page.found.values()), page.looked) == (names, 5000)


LARGE = bytes(1 << 20)


def fill_small_then_large(backend: Backend) -> None:
    """Write 1,000 small values, then a revision of three megabytes and 27 more."""
    head = batches.fill(backend, [[b"%d" % number for number in range(1000)]])
    sizes = [3, *[1] * 27]
    for revision, count in enumerate(sizes, 3):
        rows = (batches.put(revision, sub, b"%d" % sub, LARGE) for sub in range(count))
        head = batches.commit(backend, batches.keys(head, *rows))


def test_a_page_of_history_ends_where_it_has_enough_bytes(backend: Backend) -> None:
    """However many rows are asked for: values were small until now."""
    fill_small_then_large(backend)
    first, seen, pages = 2, 0, 0
    more = True
    while more:
        page = backend.history(first, 30, 5000)
        size = sum(len(row.value or b"") for row in page.rows)
        assert size < PAGE_BYTES + 3 * len(LARGE)
        assert page.more == (to_revision(page.rows[-1].meta.id) < 30)
        seen, pages, more = seen + len(page.rows), pages + 1, page.more
        first = to_revision(page.rows[-1].meta.id) + 1
    assert (seen, pages) == (1030, 4)


def test_a_page_of_values_ends_where_it_has_enough_bytes(backend: Backend) -> None:
    fill_small_then_large(backend)
    ids = [to_row_id(2, sub) for sub in range(1000)]
    ids += [to_row_id(revision, 0) for revision in range(30, 2, -1)]
    ids.insert(1000, to_row_id(99, 0))
    page = backend.values(ids)
    assert page.looked == 1009
    assert list(page.found) == [row for row in ids[:1009] if row != to_row_id(99, 0)]
    page = backend.values(ids[page.looked :])
    assert (list(page.found), page.looked) == (ids[1009:1017], 8)


def test_size_grows_with_what_is_stored(backend: Backend) -> None:
    before = backend.size()
    batches.commit(backend, batches.keys(backend.head(), batches.put(2, value=bytes(1 << 20))))
    after = backend.size()
    assert after.total >= after.in_use > before.in_use + (1 << 20) - 1


def test_hints_come_from_other_servers_until_closed(shared: Backend, other: Backend) -> None:
    woken = threading.Event()
    listener = shared.listen(woken.set)
    if listener is None:  # whoever reads this one polls
        return
    batches.fill(shared, [[b"own"]])
    assert not woken.is_set()

    def is_woken() -> bool:
        batches.fill(other, [[b"foreign"]])
        return woken.wait(0.1)

    eventually(is_woken, "a hint")
    listener.close()
    listener.close()
    woken.clear()
    batches.fill(other, [[b"again"]])
    assert not woken.is_set()
