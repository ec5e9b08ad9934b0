"""An engine for the session, images for the session, a stack for each module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.engine import Engine, running_engine
from tests.compose.stack import STACKS, Stack, copy_checkout

IN_EVERY_RUN = "postgres"
"""The stack that has every part: a database, the shim, the control plane."""


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Yield a Docker engine."""
    with running_engine(tmp_path_factory.mktemp("docker")) as engine:
        yield engine


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout to build from."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(
    scope="module",
    params=[
        name if name == IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.soak)
        for name in STACKS
    ],
)
def project(request: pytest.FixtureRequest, engine: Engine, checkout: Path) -> Iterator[Stack]:
    """Yield a stack; at the end nothing of it is left."""
    tag = f"test-{request.param}"
    settings = {**engine.image_settings(), "BYRE_TAG": tag}
    made = Stack(engine, checkout, request.param, settings)
    try:
        if engine.is_private:
            made.let_builds_out()
        yield made
    finally:
        made.remove()
        images = engine.docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", f"byre-*:{tag}")
        if images:
            engine.docker("image", "rm", *images.split())


@pytest.fixture
def stack(project: Stack) -> Stack:
    """Return a stack that runs, built and started as a user does."""
    project.ensure_up()
    return project
