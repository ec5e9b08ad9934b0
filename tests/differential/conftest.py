"""A shim and a real etcd that both start empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.etcd import etcd
from tests.support.pair import Pair
from tests.support.servers import Binaries
from tests.support.shim import shim_on


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgresql", "mariadb"])
def pair(
    request: pytest.FixtureRequest,
    binaries: Binaries,
    stores: Callable[[str, Path], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    """Start a shim and an etcd."""
    directory = tmp_path_factory.mktemp("differential")
    ours = shim_on(stores(request.param, directory), directory, request.param)
    etcds = etcd(binaries.etcd, directory)
    try:
        ours.start()
        etcds.start()
        both = Pair(ours, etcds)
        yield both
        both.close()
    finally:
        ours.close()
        etcds.close()
