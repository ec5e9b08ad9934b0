"""The memory of which datastore a data directory belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from datastore.probe import Identity
from supervisor.errors import ForeignStore
from supervisor.identity import FILE, IdentityGuard


def guard(directory: Path, kind: str = "sqlite", where: str = "unix:///a") -> IdentityGuard:
    return IdentityGuard(directory, kind, where)


def test_a_data_directory_without_a_past_takes_any_store(tmp_path: Path) -> None:
    guard(tmp_path).check(Identity(7, 100))


def test_the_same_store_is_welcome_wherever_it_is(tmp_path: Path) -> None:
    guard(tmp_path).remember(Identity(7, 100))
    guard(tmp_path, "external etcd", "https://10.0.0.5:2379").check(Identity(7, 100))


def test_another_store_is_refused_with_advice(tmp_path: Path) -> None:
    guard(tmp_path).remember(Identity(7, 100))
    with pytest.raises(ForeignStore, match=r"another datastore.*cluster 7.*--adopt-datastore"):
        guard(tmp_path).check(Identity(8, 100))


def test_a_store_that_lost_data_is_refused(tmp_path: Path) -> None:
    guard(tmp_path).remember(Identity(7, 100))
    with pytest.raises(ForeignStore, match="revision 100 has been seen, now it is at 99"):
        guard(tmp_path).check(Identity(7, 99))


def test_a_store_that_does_not_tell_its_id_is_judged_by_its_revision(tmp_path: Path) -> None:
    guard(tmp_path, "kine").remember(Identity(0, 100))
    guard(tmp_path, "kine").check(Identity(0, 101))
    with pytest.raises(ForeignStore):
        guard(tmp_path, "kine").check(Identity(0, 2))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kind": "sqlite"}'])
def test_a_broken_memory_is_not_guessed_at(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ForeignStore, match=r"identity\.json"):
        guard(tmp_path).check(Identity(7, 100))
