"""The user of the datastore's processes: who chooses, and what must be open to him."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datastore.account import (
    Account,
    choose_user,
    find_account,
    give,
    require_passage,
    require_readable,
    require_writable,
)
from datastore.errors import UnusablePath, UnusableUser

STRANGER = Account("stranger", 4711, 4711, Path("/"))


def test_only_root_can_choose() -> None:
    assert choose_user("somebody", uid=1000) is None
    assert choose_user("somebody", uid=0) == "somebody"
    assert choose_user("root", uid=0) is None


def test_a_missing_user_is_told_how_to_make_it() -> None:
    with pytest.raises(UnusableUser, match=r"useradd .* nobody-at-all.*installConfig.users"):
        find_account("nobody-at-all")


def test_an_existing_user_is_found() -> None:
    assert find_account("root") == Account("root", 0, 0, Path("/root"))


def test_a_closed_directory_on_the_way_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(UnusablePath, match=r"user stranger cannot pass through .*chmod o\+x"):
        require_passage(closed / "state.db", STRANGER)


def test_what_is_open_is_passed(tmp_path: Path) -> None:
    me = Account("me", os.geteuid(), os.getegid(), Path("/"))
    (tmp_path / "file").write_text("x")
    require_passage(tmp_path / "file", me)
    require_readable(tmp_path / "file", me)
    require_writable(tmp_path, me)


def test_a_file_or_directory_of_another_is_refused() -> None:
    require_readable(Path("/etc/passwd"), STRANGER)
    with pytest.raises(UnusablePath, match=r"chown stranger /etc`"):
        require_writable(Path("/etc"), STRANGER)
    with pytest.raises(UnusablePath, match=r"not readable for user stranger"):
        require_readable(Path("/etc/shadow"), STRANGER)


def test_giving_to_oneself_needs_no_right_and_skips_what_is_missing(tmp_path: Path) -> None:
    me = Account("me", os.geteuid(), os.getegid(), Path("/"))
    give([tmp_path, tmp_path / "missing"], me)
