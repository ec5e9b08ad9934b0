"""What /metrics shows: etcd's names where etcd has one, byre_* for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from datastore.shim.disk_metrics import disk_metrics
from datastore.shim.health import Health
from datastore.shim.replica import Replica
from datastore.shim.rpc.header import Headers
from datastore.shim.rpc.kv import KvService
from datastore.shim.rpc.maintenance import Release
from datastore.shim.rpc.quota import Quota
from datastore.shim.rpc.service import Desk
from datastore.shim.timing import TimedBackend
from datastore.shim.transport.api import Code
from datastore.shim.watch.hub import Hub
from datastore.shim.writer import Writer

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10
)  # fmt: skip
_GO_CODES: Final = {code: code.name.title().replace("_", "") for code in Code} | {Code.OK: "OK"}


class Parts(Protocol):
    """The parts of a running server that have something to tell."""

    backend: TimedBackend
    replica: Replica
    kv: KvService
    hub: Hub
    writer: Writer
    desk: Desk
    headers: Headers
    health: Health
    release: Release
    quota: Quota


class Metrics:
    """The registry of one server; nothing is counted that is not read somewhere anyway."""

    def __init__(self, *, extensive: bool) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._sql = Histogram(
            "byre_sql_duration_seconds",
            "Time that an operation of the backend took.",
            ["operation"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._sql_children: dict[str, Histogram] = {}
        self._handling: Histogram | None = None
        if extensive:
            self._handling = Histogram(
                "grpc_server_handling_seconds",
                "Time until a call was answered.",
                ["grpc_type", "grpc_service", "grpc_method"],
                buckets=_BUCKETS,
                registry=self.registry,
            )

    def observe_sql(self, operation: str, seconds: float) -> None:
        """Count an operation of the backend. Hot, and called from any thread."""
        child = self._sql_children.get(operation)
        if child is None:
            child = self._sql_children[operation] = self._sql.labels(operation)
        child.observe(seconds)

    @property
    def observe_call(self) -> Callable[[str, float], None] | None:
        """Where to tell how long a unary call took; None where nobody wants to know."""
        handling = self._handling
        if handling is None:
            return None
        return lambda path, seconds: handling.labels("unary", *path.split("/")[1:]).observe(
            seconds
        )

    def show(self, parts: Parts) -> None:
        """Show the state of a running server from now on."""
        self.registry.register(_Collector(parts))

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text form."""
        return generate_latest(self.registry)


class _Collector:
    """Reads the parts when it is asked."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        for source in (_server, _mvcc, _watch, _writer, _cache):
            for name, text, value in source(self._parts):
                if name.endswith("_total") and name not in _GAUGES:
                    yield CounterMetricFamily(name, text, value=value)
                else:
                    yield GaugeMetricFamily(name, text, value=value)
        yield from _labelled(self._parts)
        yield from _calls(self._parts.desk)
        if self._parts.backend.stats is not None:
            yield from disk_metrics(self._parts.backend.stats)


_GAUGES: Final = frozenset({
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_slow_watcher_total",
})  # fmt: skip
"""etcd's gauges whose names end as a counter's."""

Sample = tuple[str, str, float]


def _server(parts: Parts) -> Iterable[Sample]:
    serving = float(parts.health.serving)
    change = parts.replica.position.change
    yield "etcd_server_has_leader", "Whether the database can be reached.", serving
    yield "etcd_server_is_leader", "Whether this server can commit.", serving
    yield "etcd_server_is_learner", "Always 0.", 0
    yield "etcd_server_proposals_committed_total", "Commits in the log.", change
    yield "etcd_server_proposals_applied_total", "Commits applied to the index.", change
    yield (
        "etcd_server_quota_backend_bytes",
        "Size of the database above which writes are refused.",
        max(parts.quota.limit, 0),
    )


def _mvcc(parts: Parts) -> Iterable[Sample]:
    store = parts.replica.store
    yield "etcd_mvcc_db_total_size_in_bytes", "Bytes of the database.", parts.quota.size.total
    yield (
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes of the database in use.",
        parts.quota.size.in_use,
    )
    yield "etcd_debugging_mvcc_keys_total", "Keys in the index.", store.key_count
    yield "etcd_debugging_mvcc_current_revision", "Current revision.", store.revision
    yield "etcd_debugging_mvcc_compact_revision", "Compacted revision.", store.compacted
    yield "etcd_debugging_auth_revision", "Changes of users and roles.", store.auth.revision
    handled = parts.desk.handled
    for word, method in (
        ("put", "Put"),
        ("delete", "DeleteRange"),
        ("range", "Range"),
        ("txn", "Txn"),
    ):
        count = handled[f"/etcdserverpb.KV/{method}", Code.OK]
        yield f"etcd_mvcc_{word}_total", f"Calls of {method} answered.", count
    yield "byre_garbage_rows", "Compacted rows that still take space.", store.garbage
    yield "byre_leases", "Leases.", len(store.leases.ids())


def _watch(parts: Parts) -> Iterable[Sample]:
    counts = parts.hub.counts()
    yield "etcd_debugging_mvcc_watch_stream_total", "Watch streams.", counts.streams
    yield "etcd_debugging_mvcc_watcher_total", "Watchers.", counts.watchers
    yield "etcd_debugging_mvcc_slow_watcher_total", "Watchers not synced.", counts.slow
    yield "etcd_debugging_mvcc_events_total", "Events handed to watchers.", counts.events
    horizon = parts.hub.horizon()
    lag = 0 if horizon is None else parts.hub.revision - horizon + 1
    yield "byre_watch_lag_revisions", "Revisions that the slowest watcher is behind.", lag


def _writer(parts: Parts) -> Iterable[Sample]:
    stats = parts.writer.stats
    sizes = sorted(stats.sizes) or [0]
    yield "byre_batches_total", "Commits made by this server.", stats.batches
    yield "byre_writes_total", "Writes in those commits.", stats.writes
    yield "byre_batches_lost_total", "Batches that another server's commit overtook.", stats.lost
    yield "byre_batches_settled_total", "Commits whose reply was lost.", stats.settled
    yield "byre_batch_size_largest", "Most writes in one commit.", stats.largest
    yield "byre_batch_size_median", "Median of the last commits.", sizes[len(sizes) // 2]


def _cache(parts: Parts) -> Iterable[Sample]:
    cache = parts.replica.store.cache
    served, fetched = parts.kv.values_served, parts.backend.values_fetched
    yield "byre_values_served_total", "Keys returned by ranges.", served
    yield "byre_value_cache_misses_total", "Values fetched from the database.", fetched
    yield "byre_value_cache_bytes", "Bytes of values in memory.", cache.bytes
    yield "byre_value_cache_limit_bytes", "Most bytes of values in memory.", cache.limit


def _labelled(parts: Parts) -> Iterator[Metric]:
    cluster = GaugeMetricFamily(
        "etcd_cluster_version", "Version of the store.", labels=["cluster_version"]
    )
    cluster.add_metric([parts.release.storage.rpartition(".")[0]], 1)
    yield cluster
    version = GaugeMetricFamily(
        "etcd_server_version", "Version of the API.", labels=["server_version"]
    )
    version.add_metric([parts.release.version], 1)
    yield version
    server = GaugeMetricFamily("etcd_server_id", "Member id.", labels=["server_id"])
    server.add_metric([f"{parts.headers.member_id:x}"], 1)
    yield server


def _calls(desk: Desk) -> Iterator[Metric]:
    labels = ["grpc_type", "grpc_service", "grpc_method"]
    started = CounterMetricFamily("grpc_server_started", "Calls begun.", labels=labels)
    for path, count in desk.started.items():
        started.add_metric(call_labels(desk, path), count)
    yield started
    handled = CounterMetricFamily(
        "grpc_server_handled", "Calls answered, by code.", labels=[*labels, "grpc_code"]
    )
    for (path, code), count in desk.handled.items():
        handled.add_metric([*call_labels(desk, path), _GO_CODES[code]], count)
    yield handled


def call_labels(desk: Desk, path: str) -> list[str]:
    """Return the labels that etcd's metrics give a method."""
    _, service, method = path.split("/")
    return [desk.kinds[path], service, method]
