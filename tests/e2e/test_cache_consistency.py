"""kube-apiserver's own comparison of its caches with the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.e2e.controlplane import ControlPlane
from tests.support.running import eventually

pytestmark = [pytest.mark.kube, pytest.mark.soak, pytest.mark.timeout(1800)]

SECONDS = 900.0
"""Each cache is compared after five minutes to seven and a half, and again as often."""
RESOURCES = 40


def test_no_cache_differs_from_the_store(make_plane: Callable[..., ControlPlane]) -> None:
    """DetectCacheInconsistency; with the usual compactions: what is gone cannot be compared."""
    plane = make_plane({"type": "kine"})
    plane.start()
    path = plane.namespace("compared") + "/configmaps"
    written = 0

    def checks() -> Counter[tuple[str, ...]]:
        return plane.counted("apiserver_storage_consistency_checks_total", "status")

    def is_compared() -> bool:
        nonlocal written
        written += 1
        plane.create(path, {"metadata": {"name": f"m-{written}"}})
        return checks()["success",] >= RESOURCES

    eventually(is_compared, "the caches are compared", SECONDS)
    assert not checks()["failure",]
