"""What a user of Kubernetes sees, on every datastore."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import httpx
import pytest

from tests.e2e.conftest import EVENT_SECONDS, Stage
from tests.e2e.controlplane import ControlPlane
from tests.support.running import eventually

pytestmark = [pytest.mark.kube, pytest.mark.timeout(900)]

WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties: {spec: {type: object, properties: {size: {type: integer}}}}
"""

WIDGET = """
apiVersion: example.com/v1
kind: Widget
metadata: {name: small, namespace: default}
spec: {size: 3}
"""

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: example.com/web}]}
"""


def test_every_process_is_ready(plane: ControlPlane) -> None:
    # After a test that killed the store, the next look at it may be still to come.
    status = plane.await_ready()
    assert status["datastore"]["ready"]
    assert {process["state"] for process in status["processes"]} == {"ready"}
    assert plane.api.get("/readyz").text == "ok"


def test_kubectl_works_without_a_kubeconfig(plane: ControlPlane) -> None:
    printed = plane.kubectl("get", "namespaces", "-o", "name")
    assert {"namespace/default", "namespace/kube-system"} <= set(printed.split())


def test_a_config_map_lives_and_dies(plane: ControlPlane) -> None:
    path = plane.namespace("configmaps") + "/configmaps"
    made = plane.create(path, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    made["data"]["k"] = "w"
    assert plane.api.put(f"{path}/a", json=made).status_code == 200
    assert plane.get(f"{path}/a")["data"] == {"k": "w"}
    assert plane.api.delete(f"{path}/a").status_code == 200
    assert plane.api.get(f"{path}/a").status_code == 404


def test_an_update_of_something_stale_is_a_conflict(plane: ControlPlane) -> None:
    path = plane.namespace("conflict") + "/configmaps"
    stale = plane.create(path, {"metadata": {"name": "a"}})
    assert plane.api.put(f"{path}/a", json={**stale, "data": {"k": "1"}}).status_code == 200
    answer = plane.api.put(f"{path}/a", json={**stale, "data": {"k": "2"}})
    assert answer.status_code == 409
    assert plane.get(f"{path}/a")["data"] == {"k": "1"}


def test_a_custom_resource_can_be_defined_and_used(plane: ControlPlane) -> None:
    plane.kubectl("apply", "-f", "-", stdin=WIDGETS)
    eventually(lambda: _is_established(plane), "the definition is established", 120)
    eventually(lambda: _is_discovered(plane), "the new resource is discovered", 120)
    plane.kubectl("apply", "--server-side", "-f", "-", stdin=WIDGET)
    assert json.loads(plane.kubectl("get", "widget", "small", "-o", "json"))["spec"]["size"] == 3


def _is_established(plane: ControlPlane) -> bool:
    # `kubectl wait` fails on a definition that has no conditions yet.
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com"
    conditions = plane.get(path).get("status", {}).get("conditions") or []
    return ("Established", "True") in {(one["type"], one["status"]) for one in conditions}


def _is_discovered(plane: ControlPlane) -> bool:
    # What kubectl reads: a definition is established a moment before it is in there.
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    answer = plane.api.get("/apis", headers={"Accept": accept})
    resources = (
        resource["resource"]
        for group in answer.json()["items"]
        if group["metadata"]["name"] == "example.com"
        for version in group["versions"]
        for resource in version.get("resources", [])
    )
    return "widgets" in resources


def test_a_deployment_goes_through_the_controllers(plane: ControlPlane) -> None:
    plane.kubectl("apply", "-f", "-", stdin=WEB)

    def pods() -> list[Any]:
        found: list[Any] = plane.get("/api/v1/namespaces/default/pods", labelSelector="app=web")[
            "items"
        ]
        return found

    # Without a node the scheduler says why nothing can run.
    eventually(
        lambda: (
            [pod["status"].get("conditions", [{}])[0].get("reason") for pod in pods()]
            == ["Unschedulable"] * 2
        ),
        "two pods wait for a node",
        240,
    )
    assert {pod["status"]["phase"] for pod in pods()} == {"Pending"}

    def status() -> Any:
        return plane.get("/apis/apps/v1/namespaces/default/deployments/web")["status"]

    eventually(
        lambda: status().get("unavailableReplicas") == 2 and status().get("observedGeneration"),
        "the deployment tells of both",
        120,
    )


def test_a_deleted_namespace_takes_its_objects_along(plane: ControlPlane) -> None:
    path = plane.namespace("short-lived")
    plane.create(f"{path}/configmaps", {"metadata": {"name": "a"}})
    plane.kubectl("delete", "namespace", "short-lived", "--timeout=240s")
    assert plane.api.get(path).status_code == 404


def test_five_thousand_objects_are_listed_in_pages(plane: ControlPlane) -> None:
    path = plane.namespace("many") + "/configmaps"

    def make(number: int) -> None:
        plane.create(path, {"metadata": {"name": f"m-{number:04}"}, "data": {"k": "x" * 100}})

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(make, range(5000)))
    pages = _list_in_pages(plane, path)
    names = [name for page in pages for name in page]
    expected = {f"m-{number:04}" for number in range(5000)}
    assert expected <= set(names)
    assert len(names) == len(set(names))
    assert len(pages) >= 10


def _list_in_pages(plane: ControlPlane, path: str) -> list[list[str]]:
    """Return the names on each page of a list."""
    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        answer = plane.api.get(path, params={"limit": 500, "continue": token})
        if answer.status_code == 410:
            # A compaction overtook the pages: clients begin anew.
            pages, token = [], ""
            continue
        assert answer.status_code == 200, answer.text
        page = answer.json()
        pages.append([item["metadata"]["name"] for item in page["items"]])
        token = page["metadata"].get("continue", "")
    return pages


def test_an_event_expires_with_its_lease(plane: ControlPlane) -> None:
    path = plane.namespace("events") + "/events"
    began = time.monotonic()
    plane.create(
        path,
        {
            "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod", "namespace": "events", "name": "p"},
        },
    )
    eventually(lambda: plane.api.get(f"{path}/e").status_code == 404, "the event is gone", 120)
    assert time.monotonic() - began >= EVENT_SECONDS


def _watch_until(plane: ControlPlane, path: str, revision: str, last: str) -> list[Any]:
    """Return type and name of every change after a revision, up to that of the object `last`."""
    parameters = {"watch": "1", "resourceVersion": revision}
    seen: list[Any] = []
    with plane.api.stream("GET", path, params=parameters, timeout=300) as answer:
        for line in answer.iter_lines():
            event = json.loads(line)
            seen.append((event["type"], event["object"]["metadata"]["name"]))
            if seen[-1][1] == last:
                break
    return seen


def test_a_watch_goes_on_through_compactions(plane: ControlPlane) -> None:
    path = plane.namespace("watched") + "/configmaps"
    first = plane.create(path, {"metadata": {"name": "m-0"}})["metadata"]["resourceVersion"]
    made = 0

    def is_compacted() -> bool:
        nonlocal made
        made += 1
        plane.create(path, {"metadata": {"name": f"m-{made}"}})
        answer = plane.api.get(
            path, params={"resourceVersion": first, "resourceVersionMatch": "Exact"}
        )
        return answer.status_code == 410

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(_watch_until, plane, path, first, "last")
        try:
            eventually(is_compacted, f"revision {first} is compacted", 180)
        finally:
            plane.create(path, {"metadata": {"name": "last"}})
        seen = watching.result()
    expected = [("ADDED", f"m-{number}") for number in range(1, made + 1)]
    assert [one for one in seen if one[1] != "kube-root-ca.crt"] == [*expected, ("ADDED", "last")]


class Load:
    """Writers that remember what was acknowledged."""

    def __init__(self, plane: ControlPlane, path: str) -> None:
        self.acknowledged: list[str] = []
        self.enough = threading.Event()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(plane, path, number)) for number in range(4)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, plane: ControlPlane, path: str, writer: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            name = f"w-{writer}-{number}"
            try:
                answer = plane.api.post(path, json={"metadata": {"name": name}})
            except httpx.HTTPError:
                continue
            if answer.status_code == 201:
                self.acknowledged.append(name)
                if len(self.acknowledged) >= 50:
                    self.enough.set()


def test_a_store_killed_under_load_loses_no_acknowledged_write(stage: Stage) -> None:
    plane = stage.plane
    path = plane.namespace("load") + "/configmaps"
    before = {one["name"]: one for one in plane.status()["processes"]}
    with Load(plane, path) as load:
        assert load.enough.wait(120)
        _crash(stage)
        load.enough.clear()
        count = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) > count + 20, "writes go on", 240)
    after = {one["name"]: one for one in plane.status()["processes"]}
    if stage.store:
        store = after[stage.store]
        assert store["restarts"] == before[stage.store]["restarts"] + 1
        assert store["last_exit"]["reason"] == "killed by SIGKILL"
    # The API server waits for its store; nobody restarts it meanwhile.
    assert after["kube-apiserver"]["pid"] == before["kube-apiserver"]["pid"]
    names = {item["metadata"]["name"] for item in plane.get(path)["items"]}
    assert set(load.acknowledged) <= names


def _crash(stage: Stage) -> None:
    if stage.external:
        stage.external.kill()
        stage.external.start()
    else:
        os.kill(stage.plane.process(stage.store)["pid"], signal.SIGKILL)


KEPT = (
    "/api/v1/namespaces",
    "/api/v1/configmaps",
    "/api/v1/services",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/apps/v1/deployments",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
)


def _objects(plane: ControlPlane) -> dict[str, tuple[str, str]]:
    """Return uid and resourceVersion of everything that nobody writes by itself.

    Aggregated cluster roles are rewritten at each start, by the API server's bootstrap and then
    by the aggregation controller: of those only the uid has to stay.
    """
    return {
        f"{path}/{item['metadata'].get('namespace', '')}/{item['metadata']['name']}": (
            item["metadata"]["uid"],
            "" if item.get("aggregationRule") else item["metadata"]["resourceVersion"],
        )
        for path in KEPT
        for item in plane.get(path)["items"]
    }


def test_a_restart_of_everything_keeps_every_object(plane: ControlPlane) -> None:
    path = plane.namespace("kept") + "/configmaps"
    for number in range(20):
        plane.create(path, {"metadata": {"name": f"k-{number}"}})
    eventually(
        lambda: plane.api.get(f"{path}/kube-root-ca.crt").status_code == 200,
        "the controllers have seen the namespace",
        120,
    )
    before = _objects(plane)
    assert plane.stop() == 0
    plane.start()
    after = _objects(plane)
    assert {name: after.get(name) for name in before} == before
