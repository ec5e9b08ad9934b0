from __future__ import annotations

import os
from pathlib import Path

import pytest

from datastore.errors import UnusablePath
from datastore.paths import Paths, make_directory, open_passage, socket_url


def test_root_uses_the_system_s_directories() -> None:
    assert Paths.default(uid=0, environ={"HOME": "/root"}) == Paths(
        Path("/var/lib/byre"),
        Path("/run/byre"),
        Path("/var/cache/byre"),
        Path("/etc/byre/byre.yaml"),
    )


def test_others_use_the_xdg_directories() -> None:
    environ = {
        "HOME": "/home/u",
        "XDG_RUNTIME_DIR": "/run/user/1000",
        "XDG_CACHE_HOME": "relative/is/ignored",
    }
    assert Paths.default(uid=1000, environ=environ) == Paths(
        Path("/home/u/.local/share/byre"),
        Path("/run/user/1000/byre"),
        Path("/home/u/.cache/byre"),
        Path("/home/u/.config/byre/byre.yaml"),
    )


def test_without_a_runtime_directory_it_is_below_the_data() -> None:
    paths = Paths.default(uid=1000, environ={"HOME": "/home/u"})
    assert paths.run_dir == Path("/home/u/.local/share/byre/run")


def test_every_data_directory_has_its_run_directory() -> None:
    one, two = (Paths.default(Path(name), uid=0) for name in ("/a", "/b"))
    assert one.run_dir.parent == two.run_dir.parent == Path("/run/byre")
    assert one.run_dir != two.run_dir
    assert Paths.default(Path("/var/lib/byre/"), uid=0).run_dir == Path("/run/byre")


def test_relative_directories_become_absolute() -> None:
    assert Paths.default(Path("here"), uid=0).data_dir == Path.cwd() / "here"


def test_directories_are_private_on_the_way_too(tmp_path: Path) -> None:
    make_directory(tmp_path / "a/b")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700


def test_an_open_directory_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_directory(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(UnusablePath, match=r"a/b: not a directory"):
        make_directory(tmp_path / "a/b")
    with pytest.raises(UnusablePath, match="is not a directory; move it away"):
        make_directory(tmp_path / "a")


def test_a_directory_that_cannot_be_made_is_told() -> None:
    with pytest.raises(UnusablePath) as caught:
        make_directory(Path("/proc/byre/db"))
    assert str(caught.value).startswith("cannot use /proc/byre/db: ")


def test_the_longest_socket_path_that_fits() -> None:
    fits = Path("/" + "s" * 106)
    assert socket_url(fits) == f"unix://{fits}"
    with pytest.raises(UnusablePath, match="at most 107 bytes, this one has 108"):
        socket_url(Path(f"{fits}s"))


def test_bytes_count_not_characters() -> None:
    with pytest.raises(UnusablePath, match="this one has 109"):
        socket_url(Path(os.fsdecode("/" + "é" * 54)))


def test_a_passage_lets_others_through_and_shows_nothing(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "data", tmp_path / "run", tmp_path, tmp_path / "byre.yaml")
    for directory in paths.passages:
        make_directory(directory)
    open_passage(paths.passages)
    assert {path.stat().st_mode & 0o777 for path in paths.passages} == {0o711}


def test_the_directory_above_all_run_directories_is_a_passage_too() -> None:
    assert Paths.default(Path("/a"), uid=0).passages[1] == Path("/run/byre")
    assert len(Paths.default(uid=0).passages) == 2
