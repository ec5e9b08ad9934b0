"""ConfigMaps through a real kube-apiserver on each of the peers, in interleaved rounds."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles
from typing import Any, Final, NamedTuple

from tests.benchmarks.peers import Peer
from tests.e2e.controlplane import ControlPlane

CLIENTS: Final = 16
CONFIG_MAPS: Final = 5_000
"""Of each peer, over all rounds."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_DATA: Final = "x" * 1024


class _Request(NamedTuple):
    method: str
    path: str
    status: int


def measure(peers: Mapping[str, Peer], data: Path, rounds: int) -> list[dict[str, Any]]:
    """Create ConfigMaps and update each once; return the results as the load generator's are.

    All control planes run all the time, so each is measured beside the same idle ones.
    """
    results: list[dict[str, Any]] = []
    with ExitStack() as stack:
        planes: dict[str, ControlPlane] = {}
        for name, peer in peers.items():
            planes[name] = plane = _plane(data / f"{name}-plane", peer)
            stack.callback(plane.close)
            plane.start()
        names = list(planes)
        for number in range(rounds):
            for name in (*names[number % len(names) :], *names[: number % len(names)]):
                print(f"{name}: ConfigMaps, round {number}", flush=True)
                results += _round(name, planes[name], peers[name], number, CONFIG_MAPS // rounds)
    return results


def _plane(directory: Path, peer: Peer) -> ControlPlane:
    directory.mkdir()
    cluster = {"endpoints": [f"http://{peer.address}"]}
    return ControlPlane(directory, {"type": "etcd", "etcd": {"externalCluster": cluster}})


def _round(
    name: str, plane: ControlPlane, peer: Peer, number: int, count: int
) -> Iterator[dict[str, Any]]:
    path = plane.namespace(f"round-{number}") + "/configmaps"
    names = [f"map-{number}-{one}" for one in range(count)]
    creates = [_Request("POST", path, 201) for _ in names]
    updates = [_Request("PUT", f"{path}/{one}", 200) for one in names]
    for workload, requests in (("configmap-create", creates), ("configmap-update", updates)):
        before, began = _cpu_seconds(peer.pid), time.perf_counter()
        taken = _send(plane, list(zip(requests, names, strict=True)))
        seconds, used = time.perf_counter() - began, _cpu_seconds(peer.pid) - before
        cuts = quantiles(taken, n=100)
        yield {
            "workload": workload,
            "clients": CLIENTS,
            "target": name,
            "ops_per_sec": count / seconds,
            "p50_ms": cuts[49] * 1e3,
            "p99_ms": cuts[98] * 1e3,
            "server_cpu_us_per_op": used / count * 1e6,
            "peak_rss_mib": 0.0,
        }


def _send(plane: ControlPlane, work: Sequence[tuple[_Request, str]]) -> list[float]:
    """Have so many clients share the requests; return the seconds that each took."""
    pki = plane.data_dir / "pki"
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def client(part: Sequence[tuple[_Request, str]]) -> list[float]:
        connection = http.client.HTTPSConnection("127.0.0.1", plane.port, context=context)
        connection.connect()
        try:
            return [_timed(lambda one=one: _exchange(connection, *one)) for one in part]  # type: ignore[misc]
        finally:
            connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        parts = pool.map(client, [work[at::CLIENTS] for at in range(CLIENTS)])
        return [seconds for part in parts for seconds in part]


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _exchange(connection: http.client.HTTPSConnection, request: _Request, name: str) -> None:
    content = {"metadata": {"name": name}, "data": {"method": request.method, "filler": _DATA}}
    headers = {"Content-Type": "application/json"}
    connection.request(request.method, request.path, json.dumps(content), headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != request.status:
        raise RuntimeError(f"{request.method} {request.path}: {answer.status} {body[:200]!r}")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
