from __future__ import annotations

import fcntl
import shutil
import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from supervisor.binaries import Binaries, BinaryUnavailable, WrongVersion
from supervisor.fetch import FetchError
from supervisor.progress import Step
from supervisor.releases import NAMES, Program, parse_version, program
from supervisor.toolchain import NoGo

KUBERNETES = "Kubernetes v1.37.2"
ETCD = "etcd Version: 3.7.3\nGit SHA: x"


def script(path: Path, output: str, status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {status}\n")
    path.chmod(0o755)
    return path


class Site:
    """A download site: gives a program that prints `output`, or fails."""

    def __init__(self, output: str = "", error: FetchError | None = None) -> None:
        self.output = output
        self.error = error
        self.asked: list[str] = []

    def __call__(
        self, wanted: Program, directory: Path, on_bytes: Callable[[int, int | None], None]
    ) -> Path:
        self.asked.append(wanted.name)
        if self.error:
            (directory / "download").write_bytes(b"half")
            raise self.error
        on_bytes(1, 2)
        found = script(directory / wanted.name, self.output)
        found.chmod(0o644)
        return found


class World:
    """A machine with a PATH of its own and a cache."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "path"
        self.path.mkdir()
        self.cache = directory / "cache"
        # The scripts need cat, and Go must not be found.
        for tool in ("cat", "sh"):
            (self.path / tool).symlink_to(shutil.which(tool) or "")
        self.steps: list[Step] = []
        self.site = Site(error=FetchError("host cannot be reached", "host"))

    def binaries(
        self, explicit: dict[str, Path] | None = None, kubernetes: str = "1.37.2"
    ) -> Binaries:
        return Binaries(
            self.cache,
            kubernetes=kubernetes,
            explicit=explicit,
            progress=self.steps.append,
            environ={"PATH": str(self.path)},
            fetcher=self.site,
            find_go=self.find_go,
        )

    def find_go(self, environ: object, cache: object, on_bytes: object) -> str:
        found = shutil.which("go", path=str(self.path))
        if found is None:
            raise NoGo("Go is not installed")
        return found

    def left_in_cache(self) -> list[str]:
        return sorted(path.name for path in (self.cache / "bin").iterdir())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class TestFind:
    def test_in_path_with_the_right_version(self, world: World) -> None:
        here = script(world.path / "kube-apiserver", KUBERNETES)
        assert world.binaries().find("kube-apiserver") == here

    def test_another_version_in_path_is_passed_over(self, world: World) -> None:
        script(world.path / "kube-apiserver", "Kubernetes v1.36.0")
        assert world.binaries().find("kube-apiserver") is None

    def test_a_version_asked_for_is_found(self, world: World) -> None:
        here = script(world.path / "kube-apiserver", "Kubernetes v1.36.0")
        assert world.binaries(kubernetes="1.36.0").find("kube-apiserver") == here

    def test_an_explicit_one_comes_first(self, world: World, tmp_path: Path) -> None:
        script(world.path / "etcd", ETCD)
        mine = script(tmp_path / "mine", ETCD)
        assert world.binaries({"etcd": mine}).find("etcd") == mine

    def test_an_explicit_one_that_is_missing(self, world: World, tmp_path: Path) -> None:
        with pytest.raises(BinaryUnavailable, match=r"etcd: .*/mine does not exist"):
            world.binaries({"etcd": tmp_path / "mine"}).find("etcd")

    def test_an_explicit_one_that_is_not_executable(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("")
        with pytest.raises(BinaryUnavailable, match="is not executable; chmod"):
            world.binaries({"etcd": tmp_path / "mine"}).find("etcd")

    def test_an_explicit_one_of_the_wrong_version(self, world: World, tmp_path: Path) -> None:
        mine = script(tmp_path / "mine", "Kubernetes v1.30.1")
        with pytest.raises(WrongVersion, match=r"is version 1\.30\.1, needed is 1\.37\.2; name"):
            world.binaries({"kube-apiserver": mine}).find("kube-apiserver")

    @pytest.mark.parametrize(("version", "fits"), [("3.5.12", False), ("3.6.0", True)])
    def test_an_explicit_etcd_may_be_any_that_is_new_enough(
        self, world: World, tmp_path: Path, version: str, fits: bool
    ) -> None:
        binaries = world.binaries({"etcd": script(tmp_path / "mine", f"etcd Version: {version}")})
        if fits:
            assert binaries.find("etcd") == tmp_path / "mine"
        else:
            with pytest.raises(WrongVersion, match=r"needed is 3\.5\.13 or newer"):
                binaries.find("etcd")

    def test_an_explicit_kine_may_be_built_from_source(self, world: World, tmp_path: Path) -> None:
        mine = script(tmp_path / "mine", "kine version dev (HEAD)")
        assert world.binaries({"kine": mine}).find("kine") == mine

    def test_something_else_entirely(self, world: World, tmp_path: Path) -> None:
        mine = script(tmp_path / "mine", "usage", status=2)
        with pytest.raises(WrongVersion, match="tells no version: status 2: usage"):
            world.binaries({"etcd": mine}).find("etcd")


class TestObtain:
    def test_a_download_goes_to_the_cache_and_is_found_there(self, world: World) -> None:
        world.site = Site(KUBERNETES)
        found = world.binaries().obtain("kube-apiserver")
        assert found.is_relative_to(world.cache)
        assert found.stat().st_mode & 0o777 == 0o755
        assert world.binaries().obtain("kube-apiserver") == found
        assert world.site.asked == ["kube-apiserver"]
        assert [step.finished for step in world.steps] == [False, False, True]

    def test_versions_live_side_by_side(self, world: World) -> None:
        world.site = Site(KUBERNETES)
        one = world.binaries().obtain("kube-scheduler")
        world.site = Site("Kubernetes v1.36.0")
        assert world.binaries(kubernetes="1.36.0").obtain("kube-scheduler") != one

    def test_the_error_names_every_way(self, world: World) -> None:
        script(world.path / "kube-apiserver", "Kubernetes v1.36.0")
        with pytest.raises(BinaryUnavailable) as caught:
            world.binaries().obtain("kube-apiserver")
        lines = str(caught.value).splitlines()
        assert lines[0] == "kube-apiserver 1.37.2 cannot be had; tried:"
        assert [line.partition(":")[0] for line in lines[1:-1]] == [
            "  - PATH",
            "  - byre's cache",
            "  - download",
            "  - go build",
        ]
        assert "is version 1.36.0, needed is 1.37.2" in lines[1]
        assert lines[3] == "  - download: host cannot be reached"
        assert "Go is not installed" in lines[4]
        assert lines[5].startswith("put kube-apiserver 1.37.2 into PATH, name its path")

    def test_nothing_half_made_is_left(self, world: World) -> None:
        with pytest.raises(BinaryUnavailable):
            world.binaries().obtain("etcd")
        assert world.left_in_cache() == [".lock"]

    def test_an_interrupted_download_leaves_nothing(self, world: World) -> None:
        def interrupt(*_: object) -> Path:
            raise KeyboardInterrupt

        binaries = Binaries(world.cache, environ={"PATH": str(world.path)}, fetcher=interrupt)
        with pytest.raises(KeyboardInterrupt):
            binaries.obtain("etcd")
        assert world.left_in_cache() == [".lock"]

    def test_what_a_killed_byre_left_is_removed(self, world: World) -> None:
        world.site = Site(ETCD)
        left = world.cache / "bin/.partial-x"
        left.mkdir(parents=True)
        (left / "download").write_bytes(b"half")
        world.binaries().obtain("etcd")
        assert not left.exists()

    def test_a_download_of_another_version_is_not_kept(self, world: World) -> None:
        world.site = Site("Kubernetes v1.30.1")
        with pytest.raises(
            BinaryUnavailable, match=r"what came is version 1\.30\.1, not 1\.37\.2"
        ):
            world.binaries().obtain("kube-apiserver")
        assert world.left_in_cache() == [".lock"]

    def test_an_unreachable_host_is_asked_once(self, world: World) -> None:
        world.site = Site(error=FetchError("dl.k8s.io cannot be reached", "dl.k8s.io"))
        binaries = world.binaries()
        for name in ("kube-apiserver", "kubectl"):
            with pytest.raises(
                BinaryUnavailable, match=r"download: dl\.k8s\.io cannot be reached"
            ):
                binaries.obtain(name)
        assert world.site.asked == ["kube-apiserver"]

    def test_a_version_without_pinned_modules_cannot_be_built(self, world: World) -> None:
        with pytest.raises(BinaryUnavailable, match=r"no modules are pinned for kubectl 1\.36\.0"):
            world.binaries(kubernetes="1.36.0").obtain("kubectl")

    def test_go_builds_with_the_pinned_modules(self, world: World) -> None:
        go = world.path / "go"
        go.write_text(
            "#!/bin/sh\n"
            'test -f go.mod -a -f go.sum -a "$GOWORK" = off -a -z "$BYRE_SECRET" || exit 1\n'
            "echo go: downloading x\necho k8s.io/a\necho k8s.io/b\n"
            'while [ "$1" != -o ]; do shift; done\n'
            "printf '#!/bin/sh\\necho Kubernetes v1.37.2\\n' > \"$2\"\n"
        )
        go.chmod(0o755)
        found = world.binaries().obtain("kube-scheduler")
        assert found.is_relative_to(world.cache)
        assert [step.done for step in world.steps if step.unit == "packages"] == [1, 2]

    def test_a_build_that_fails_tells_the_compiler_s_words(self, world: World) -> None:
        script(world.path / "go", "x.go:1: syntax error", status=1)
        with pytest.raises(BinaryUnavailable, match=r"status 1:\n +x\.go:1: syntax error"):
            world.binaries().obtain("kube-scheduler")

    def test_kine_needs_a_c_compiler(self, world: World) -> None:
        script(world.path / "go", "")
        with pytest.raises(BinaryUnavailable, match="kine needs a C compiler"):
            world.binaries().obtain("kine")

    def test_an_unusable_cache_is_told(self, world: World) -> None:
        world.cache.write_text("a file")
        with pytest.raises(BinaryUnavailable, match=r"byre's cache: cannot use .*not a directory"):
            world.binaries().obtain("etcd")

    def test_two_byres_do_not_make_the_same_twice(self, world: World) -> None:
        world.site = Site(ETCD)
        place = world.cache / "bin"
        place.mkdir(parents=True)
        waiting = threading.Event()

        def report(step: Step) -> None:
            if "waiting" in step.action:
                waiting.set()

        second = Binaries(
            world.cache,
            progress=report,
            environ={"PATH": str(world.path)},
            fetcher=world.site,
        )
        results: list[Path] = []
        with (place / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            thread = threading.Thread(target=lambda: results.append(second.obtain("etcd")))
            thread.start()
            assert waiting.wait(30)
            made = second._place(program("etcd"))
            script(made, ETCD)
        thread.join(30)
        assert results == [made]
        assert world.site.asked == []


@pytest.mark.parametrize("name", NAMES)
def test_every_program_has_a_recipe_that_pins_its_version(name: str) -> None:
    wanted = program(name)
    assert wanted.recipe
    folder = resources.files("supervisor").joinpath("recipes", wanted.recipe.folder)
    lines = folder.joinpath("go.mod").read_text().splitlines()
    module = next(
        line.split()
        for line in lines
        if " v" in line
        and wanted.recipe.package.startswith(line.replace("require", "").split()[0])
    )
    assert f"v{wanted.version}" in module
    assert folder.joinpath("go.sum").is_file()


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("Kubernetes v1.37.2", "1.37.2"),
        (
            '{"clientVersion": {"major": "1", "gitVersion": "v1.37.2", "goVersion": "go1.26.8"}}',
            "1.37.2",
        ),
        ("etcd Version: 3.7.3\nGo Version: go1.26.8", "3.7.3"),
        ("kine version v0.17.5 (HEAD)", "0.17.5"),
        ("Kubernetes v1.38.0-alpha.1", "1.38.0-alpha.1"),
        ("kine version dev (HEAD)", None),
        ("go1.26.8", None),
    ],
)
def test_versions_are_read_from_output(output: str, version: str | None) -> None:
    assert parse_version(output) == version
