"""kube-apiserver under load for long: everybody sees the same, and the shim stays as it was."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.controlplane import ControlPlane
from tests.e2e.traffic import LAST, Course, Lister, Resource, Watcher, Writer, list_in_pages
from tests.support.running import eventually
from tests.support.soaking import SOAK_SECONDS

pytestmark = [pytest.mark.kube, pytest.mark.soak, pytest.mark.timeout(0)]

ARGUMENTS = {"etcd-compaction-interval": "30s"}
"""So that what is kept of the past is as much in the end as after the warm-up."""
WRITERS = 3
PATIENCE = ((20, 500), (8, 40))
"""Of watches that are begun again: see `Watcher`."""
END_SECONDS = 300.0
RSS_RATIO = 1.3
STREAMS_MORE = 10
FAULT = re.compile(r"Traceback|^\S+ (ERROR|CRITICAL) ", re.MULTILINE)


class Sample(NamedTuple):
    """How large the shim is."""

    at: float
    rss: int
    files: int
    under_way: int
    """Calls, watches among them."""
    watchers: int


class Crowd:
    """The clients of one resource, at work."""

    def __init__(self, plane: ControlPlane, resource: Resource, pool: ThreadPoolExecutor) -> None:
        self._plane = plane
        self._path = path = resource.path
        begin, self._begin = list_in_pages(plane, path)
        self._stop, self._in_vain = threading.Event(), threading.Event()
        self._writers = [Writer(plane, resource, number) for number in range(WRITERS)]
        self._last = Writer(plane, resource, WRITERS)
        self._steady = Watcher(plane, path, begin, None)
        self._restarted = [Watcher(plane, path, begin, patience) for patience in PATIENCE]
        self._lister = Lister(plane, path)
        self._watching = [
            pool.submit(one.run, self._in_vain) for one in (self._steady, *self._restarted)
        ]
        self._working = [pool.submit(one.run, self._stop) for one in self._writers]
        self._working.append(pool.submit(self._lister.run, self._stop))

    def check(self) -> None:
        """Raise what a client has failed with."""
        for one in (*self._working, *self._watching):
            if one.done():
                one.result()

    def finish(self) -> None:
        """Let all clients end, and compare what they have seen."""
        self._stop.set()
        for one in self._working:
            one.result(END_SECONDS)
        self._last.create(LAST)
        for one in self._watching:
            one.result(END_SECONDS)
        end, state = list_in_pages(self._plane, self._path)
        course = Course(self._begin, self._steady.seen)
        course.check_writers([*self._writers, self._last])
        for other in self._restarted:
            assert other.seen == self._steady.seen
        course.check_lists([*self._lister.lists, (end, state)])
        course.check_follows(self._lister.follows)

    def give_up(self) -> None:
        """Let those end who still wait for something."""
        self._stop.set()
        self._in_vain.set()

    def __str__(self) -> str:
        watches = [one.watches for one in self._restarted]
        bookmarks = sum(one.bookmarks for one in (self._steady, *self._restarted))
        return (
            f"{self._path}: {len(self._steady.seen)} events, restarted watches {watches}, "
            f"{bookmarks} bookmarks, {len(self._lister.lists)} lists"
        )


@contextmanager
def crowds(plane: ControlPlane, resources: Sequence[Resource]) -> Iterator[Sequence[Crowd]]:
    """Have everybody at work; in the end they have to have seen the same."""
    with ThreadPoolExecutor(64) as pool:
        found = [Crowd(plane, resource, pool) for resource in resources]
        try:
            yield found
            for crowd in found:
                crowd.finish()
                print(crowd)
        finally:
            for crowd in found:
                crowd.give_up()


def sample(store: httpx.Client, began: float) -> Sample:
    """Ask the shim for its size."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(store.get("/metrics").text):
        for one in family.samples:
            found[one.name] += int(one.value)
    return Sample(
        time.monotonic() - began,
        found["process_resident_memory_bytes"],
        found["process_open_fds"],
        found["grpc_server_started_total"] - found["grpc_server_handled_total"],
        found["etcd_debugging_mvcc_watcher_total"],
    )


def check_bounds(samples: Sequence[Sample]) -> None:
    """Fail if the last quarter of the time needs more than the second one."""
    quarter = samples[-1].at / 4
    before = [one for one in samples if quarter <= one.at < 2 * quarter]
    after = [one for one in samples if one.at >= 3 * quarter]

    early, late = (
        Sample(*(max(values) for values in zip(*found, strict=True))) for found in (before, after)
    )
    print(early, late, sep="\n")
    assert late.rss <= early.rss * RSS_RATIO
    assert late.files <= early.files + STREAMS_MORE
    assert late.under_way <= early.under_way + STREAMS_MORE
    assert late.watchers <= early.watchers + STREAMS_MORE


def pids(plane: ControlPlane) -> dict[str, tuple[int, int]]:
    """Return pid and restarts of each process."""
    return {one["name"]: (one["pid"], one["restarts"]) for one in plane.status()["processes"]}


def test_a_control_plane_stays_right_and_as_large_as_it_was(
    make_plane: Callable[..., ControlPlane],
) -> None:
    plane = make_plane({"type": "kine"}, extraArgs=ARGUMENTS)
    plane.start()
    core = plane.namespace("soak")
    eventually(
        lambda: plane.api.get(f"{core}/configmaps/kube-root-ca.crt").status_code == 200,
        "the controllers have seen the namespace",
        120,
    )
    resources = (
        Resource(f"{core}/configmaps", "data", "k"),
        Resource("/apis/coordination.k8s.io/v1/namespaces/soak/leases", "spec", "holderIdentity"),
    )
    before = pids(plane)
    samples: list[Sample] = []
    began = time.monotonic()
    with plane.store() as store, crowds(plane, resources) as found:
        while time.monotonic() - began < SOAK_SECONDS:
            samples.append(sample(store, began))
            assert plane.api.get("/readyz").text == "ok"
            for crowd in found:
                crowd.check()
            time.sleep(1)
    assert pids(plane) == before
    check_bounds(samples)
    log = (plane.data_dir / "logs" / "datastore.log").read_text()
    assert not FAULT.search(log), log[-2000:]
