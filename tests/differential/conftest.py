"""A shim and a real etcd that both start empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.etcd import etcd
from tests.support.pair import Pair
from tests.support.servers import Binaries
from tests.support.shim import shim


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def pair(
    request: pytest.FixtureRequest, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Start a shim and an etcd."""
    directory = tmp_path_factory.mktemp("differential")
    ours, etcds = shim(directory, request.param), etcd(binaries.etcd, directory)
    try:
        ours.start()
        etcds.start()
        both = Pair(ours, etcds)
        yield both
        both.close()
    finally:
        ours.close()
        etcds.close()
