"""What kube-apiserver does only with a store that it takes for an etcd of today, and trusts."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.e2e.controlplane import ControlPlane, count

pytestmark = [
    pytest.mark.kube,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("stage", ["sqlite", "postgresql"], indirect=True),
]

TIMES = 10
AT_ONCE_SECONDS = 0.5
"""Without progress notifications a consistent list waits three seconds, then reads the store."""
CONFIG_MAPS = "/api/v1/configmaps"


def of_store(plane: ControlPlane, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    with plane.store() as client:
        return count(client.get("/metrics").text, name, *labels)


def quickest(work: Callable[[], object]) -> float:
    """Return the seconds of the quickest of some times: the machine may be busy at others."""
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def test_consistent_lists_come_from_the_cache_at_once(plane: ControlPlane) -> None:
    """Which proves the feature probe: without progress notifications there is no such list."""

    def reads() -> Counter[tuple[str, ...]]:
        name = "apiserver_watch_cache_consistent_read_total"
        return plane.counted(name, "resource", "success", "fallback")

    before = reads()
    assert quickest(lambda: plane.get(CONFIG_MAPS)) < AT_ONCE_SECONDS
    after = reads()
    good = ("configmaps", "true", "false")
    assert after[good] - before[good] >= TIMES
    assert {key[1:] for key in after} == {good[1:]}
    assert of_store(plane, "grpc_server_handled_total", "grpc_method", "grpc_code")["Status", "OK"]


def test_a_watch_that_begins_with_a_list_has_it_at_once(plane: ControlPlane) -> None:
    path = plane.namespace("watch-list") + "/configmaps"
    names = [f"m-{number}" for number in range(20)]
    for name in names:
        plane.create(path, {"metadata": {"name": name}})

    def watch_list() -> None:
        assert set(names) <= set(_watch_list(plane, path))

    assert quickest(watch_list) < AT_ONCE_SECONDS


def _watch_list(plane: ControlPlane, path: str) -> list[str]:
    """Return the names that come before the end of the initial events."""
    parameters = {
        "watch": "1",
        "sendInitialEvents": "true",
        "allowWatchBookmarks": "true",
        "resourceVersionMatch": "NotOlderThan",
    }
    # What is compressed comes in whole blocks: late.
    plain = {"Accept-Encoding": "identity"}
    seen = []
    with plane.api.stream("GET", path, params=parameters, headers=plain) as answer:
        for line in answer.iter_lines():
            event = json.loads(line)
            metadata = event["object"]["metadata"]
            if event["type"] == "BOOKMARK" and metadata.get("annotations"):
                assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
                return seen
            if event["type"] == "ADDED":
                seen.append(metadata["name"])
    raise AssertionError("the watch ended before its list")


def test_the_caches_are_filled_by_range_streams(plane: ControlPlane) -> None:
    requests = plane.counted("etcd_request_duration_seconds_count", "operation")
    assert requests["listStream",] >= 40, "about one for each resource"
    assert not plane.counted("etcd_request_errors_total", "operation")["listStream",]
    answers = of_store(plane, "grpc_server_handled_total", "grpc_method", "grpc_code")
    assert answers["RangeStream", "OK"] >= 40
    assert not answers["RangeStream", "Unimplemented"]
