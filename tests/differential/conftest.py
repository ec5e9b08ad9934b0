"""A shim and a real etcd that both start empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.etcd import etcd
from tests.support.pair import Pair
from tests.support.servers import Binaries
from tests.support.shim import shim_on

FLAGS = ("--bcrypt-cost=4",)
"""The least: programs of several users make passwords all the time."""


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgresql", "mariadb"])
def pair(
    request: pytest.FixtureRequest,
    binaries: Binaries,
    stores: Callable[[str, Path], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    """Start a shim and an etcd."""
    directory = tmp_path_factory.mktemp("differential")
    ours = shim_on(stores(request.param, directory), directory, request.param, FLAGS)
    etcds = etcd(binaries.etcd, directory, FLAGS)
    try:
        ours.start()
        etcds.start()
        both = Pair(ours, etcds)
        yield both
        both.close()
    finally:
        ours.close()
        etcds.close()
