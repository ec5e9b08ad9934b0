"""Build a program from the Go module proxy with the modules pinned in `recipes/`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from supervisor.child import run
from supervisor.releases import Program
from supervisor.toolchain import NoGo

BUILD_SECONDS: Final = 3600.0
_LAST_LINES: Final = 12


class BuildError(Exception):
    """A build that did not work, and why."""


def build(
    program: Program,
    directory: Path,
    environ: Mapping[str, str],
    find_go: Callable[[], str],
    on_package: Callable[[int], None],
) -> Path:
    """Build `program` below `directory` and return its file.

    The build cache is Go's own, so that a second build is quick; `directory` gets the pinned
    module files and the result.

    Raises:
        BuildError: No recipe, Go or C compiler, or the build fails; with the compiler's words.
    """
    recipe = program.recipe
    if recipe is None:
        raise BuildError(f"no modules are pinned for {program.name} {program.version}")
    if recipe.is_cgo and not shutil.which(environ.get("CC", "gcc"), path=environ.get("PATH")):
        raise BuildError(f"{program.name} needs a C compiler (Debian: apt-get install gcc)")
    try:
        go = find_go()
    except NoGo as error:
        raise BuildError(str(error)) from error
    for name in ("go.mod", "go.sum"):
        pinned = resources.files("supervisor").joinpath("recipes", recipe.folder, name)
        directory.joinpath(name).write_bytes(pinned.read_bytes())
    result = directory / program.name
    argv = [go, "build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false"]
    if recipe.tags:
        argv += ["-tags", recipe.tags]
    argv += ["-ldflags", recipe.ldflags, "-o", str(result), recipe.package]
    _run(argv, directory, _environment(environ, is_cgo=recipe.is_cgo), on_package)
    return result


def _run(
    argv: list[str],
    directory: Path,
    environment: Mapping[str, str],
    on_package: Callable[[int], None],
) -> None:
    count = 0

    def counted(line: str) -> None:
        nonlocal count
        # -v prints one line a package, `go: downloading …` comes before them.
        if not line.startswith("go: "):
            count += 1
            on_package(count)

    try:
        finished = run(
            argv,
            environment=environment,
            cwd=directory,
            timeout_seconds=BUILD_SECONDS,
            on_line=counted,
        )
    except (OSError, TimeoutError) as error:
        raise BuildError(f"go build: {error}") from error
    if finished.status != 0:
        last = "\n".join(f"      {line}" for line in finished.lines[-_LAST_LINES:])
        raise BuildError(f"go build ends with status {finished.status}:\n{last}")


def _environment(environ: Mapping[str, str], *, is_cgo: bool) -> Mapping[str, str]:
    # The user's proxies and caches hold; flags and workspaces of other projects do not.
    kept = {name: value for name, value in environ.items() if not name.startswith("BYRE_")}
    return {**kept, "GOWORK": "off", "GOFLAGS": "", "CGO_ENABLED": "1" if is_cgo else "0"}


def discard(directory: Path) -> None:
    """Remove a build or download directory, whatever is in it."""
    with contextlib.suppress(OSError):
        shutil.rmtree(directory)
