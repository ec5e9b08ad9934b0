from __future__ import annotations

from pathlib import Path

import pytest

from datastore.shim.acceptance import accept_loss
from datastore.shim.backends.api import Batch, Commit, Kinds, NotReady
from datastore.shim.backends.memory import Fault, Log, MemoryBackend, Script
from datastore.shim.position import ACCEPTED_GAP, PositionFile, is_accepted


def fill(log: Log, upto: int, mark: bytes = b"a") -> None:
    """Commit one revision a change."""
    while log.head.change < upto:
        head = log.head
        batch = mark + b"%15d" % head.change
        log.append(Batch(batch, head.change, head.revision + 1, Kinds.NONE))


def served(log: Log, path: Path) -> PositionFile:
    """Record the log's end as what was served."""
    file = PositionFile(path)
    file.write(log.head.cluster_id, log.commits[log.head.change])
    return file


def opened(log: Log) -> MemoryBackend:
    backend = MemoryBackend(log, shared=True)
    backend.open()
    return backend


def test_a_file_tells_what_was_recorded_and_nothing_before(tmp_path: Path) -> None:
    log = Log(cluster_id=-5)
    fill(log, 3)
    path = tmp_path / "position.json"
    assert PositionFile(path).read() is None
    served(log, path)
    recorded = PositionFile(path).read()
    assert recorded is not None
    assert recorded.cluster_id == -5
    assert recorded.commit == Commit(3, 4, log.commits[3].batch, Kinds.NONE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"cluster_id": "x"}', "\x00"])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "position.json"
    path.write_text(content)
    with pytest.raises(NotReady, match="remove the file"):
        PositionFile(path).read()


@pytest.mark.parametrize("longer_by", [0, 1, 50])
def test_the_same_history_passes_however_much_longer(tmp_path: Path, longer_by: int) -> None:
    log = Log()
    fill(log, 10)
    file = served(log, tmp_path / "p")
    fill(log, 10 + longer_by)
    file.check(opened(log))


@pytest.mark.parametrize("upto", [5, 9, 10, 11, 60])
def test_a_history_that_lost_what_was_served_is_refused(tmp_path: Path, upto: int) -> None:
    log = Log()
    fill(log, 10)
    file = served(log, tmp_path / "p")
    log.lose_tail(5)
    fill(log, upto, b"b")
    with pytest.raises(NotReady, match="byre datastore accept-loss"):
        file.check(opened(log))


def test_another_cluster_is_refused(tmp_path: Path) -> None:
    log = Log(cluster_id=1)
    fill(log, 2)
    file = served(log, tmp_path / "p")
    with pytest.raises(NotReady, match="another cluster"):
        file.check(opened(Log(cluster_id=2)))
    with pytest.raises(NotReady, match="another cluster"):
        accept_loss(MemoryBackend(Log(cluster_id=2), shared=True), file.path)


def test_an_accepted_loss_is_served_by_all_and_no_number_is_used_twice(tmp_path: Path) -> None:
    log = Log()
    fill(log, 10)
    mine, others = served(log, tmp_path / "mine"), served(log, tmp_path / "others")
    log.lose_tail(5)
    fill(log, 7, b"b")
    accepted = accept_loss(MemoryBackend(log, shared=True), mine.path)
    assert accepted == (True, 8, 11 + ACCEPTED_GAP)
    assert log.head.revision == log.head.compacted == accepted.after
    for file in (mine, others):
        file.check(opened(log))
    fill(log, 20, b"c")
    mine.check(opened(log))


def test_a_loss_can_be_accepted_again_and_without_a_file(tmp_path: Path) -> None:
    log = Log()
    fill(log, 10)
    file = served(log, tmp_path / "p")
    first = accept_loss(MemoryBackend(log, shared=True), None)
    assert not first.lost
    file.check(opened(log))
    second = accept_loss(MemoryBackend(log, shared=True), file.path)
    assert not second.lost
    assert second.after == first.after + ACCEPTED_GAP


def test_accepting_wins_over_servers_that_write_and_over_a_lost_reply(tmp_path: Path) -> None:
    log = Log()
    fill(log, 10)
    fates = Script([Fault.OVERTAKEN, Fault.LOST_APPLIED, Fault.LOST_NOT_APPLIED])
    accepted = accept_loss(MemoryBackend(log, fates, shared=True), tmp_path / "p")
    assert log.head.revision == log.head.compacted == accepted.after
    PositionFile(tmp_path / "p").check(opened(log))


def test_only_a_jump_counts_as_acceptance() -> None:
    assert not is_accepted(served=100, compacted=100)
    assert not is_accepted(served=100, compacted=10**8)
    assert is_accepted(served=100, compacted=100 + ACCEPTED_GAP)
    # Another server had seen more than the one that accepted.
    assert is_accepted(served=10**6, compacted=100 + ACCEPTED_GAP)
