"""What kube-apiserver does only with a store that it takes for an etcd of today, and trusts."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.controlplane import ControlPlane
from tests.support.running import eventually

pytestmark = [
    pytest.mark.kube,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("stage", ["sqlite", "postgresql"], indirect=True),
]

TIMES = 10
AT_ONCE_SECONDS = 0.5
"""Without progress notifications a consistent list waits three seconds, then reads the store."""
CHECK_SECONDS = 660.0
"""Two of DetectCacheInconsistency's rounds, and some time."""
CONFIG_MAPS = "/api/v1/configmaps"


def counted(text: str, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """Add up a counter of a page of metrics by some of its labels."""
    found: Counter[tuple[str, ...]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels[label] for label in labels)] += int(sample.value)
    return found


def of_api_server(plane: ControlPlane, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    return counted(plane.api.get("/metrics").text, name, *labels)


def of_store(plane: ControlPlane, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    (endpoint,) = plane.status()["datastore"]["endpoint"]
    transport = httpx.HTTPTransport(uds=endpoint.removeprefix("unix://"))
    with closing(httpx.Client(transport=transport)) as client:
        return counted(client.get("http://localhost/metrics").text, name, *labels)


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
        return of_api_server(plane, name, "resource", "success", "fallback")

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
    requests = of_api_server(plane, "etcd_request_duration_seconds_count", "operation")
    assert requests["listStream",] >= 40, "about one for each resource"
    assert not of_api_server(plane, "etcd_request_errors_total", "operation")["listStream",]
    answers = of_store(plane, "grpc_server_handled_total", "grpc_method", "grpc_code")
    assert answers["RangeStream", "OK"] >= 40
    assert not answers["RangeStream", "Unimplemented"]


@pytest.mark.soak
def test_no_cache_differs_from_the_store(plane: ControlPlane) -> None:
    """DetectCacheInconsistency compares both every five minutes."""
    path = plane.namespace("compared") + "/configmaps"
    written = 0

    def checks() -> Counter[tuple[str, ...]]:
        return of_api_server(plane, "apiserver_storage_consistency_checks_total", "status")

    def is_compared() -> bool:
        nonlocal written
        written += 1
        plane.create(path, {"metadata": {"name": f"m-{written}"}})
        return checks()["success",] >= 40

    eventually(is_compared, "the caches are compared", CHECK_SECONDS)
    assert set(checks()) == {("success",)}
