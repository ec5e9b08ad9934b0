"""Servers that may be killed and paused: real etcd, and byre on a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.auth import QUICK
from tests.support.etcd import etcd
from tests.support.running import Server
from tests.support.servers import Binaries
from tests.support.shim import shim_on


@pytest.fixture(params=["etcd", "sqlite", "postgresql", "mariadb"])
def server(
    request: pytest.FixtureRequest,
    binaries: Binaries,
    stores: Callable[[str, Path], str],
    tmp_path: Path,
) -> Iterator[Server]:
    flags = ["--watch-progress-notify-interval=200ms", QUICK]
    started = (
        etcd(binaries.etcd, tmp_path, flags)
        if request.param == "etcd"
        else shim_on(stores(request.param, tmp_path), tmp_path, request.param, flags)
    )
    started.start()
    yield started
    started.close()
