"""A backend's own counters as metrics, under etcd's names where it measures the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from datastore.shim.backends.stats import Histogram, Stats


def disk_metrics(stats: Stats) -> Iterator[Metric]:
    """Give the metrics of a SQL backend."""
    for name, text, histogram in (
        ("etcd_disk_wal_fsync_duration_seconds", "Syncs of the WAL.", stats.sync_seconds),
        ("etcd_disk_backend_commit_duration_seconds", "Commits.", stats.append_seconds),
        ("byre_disk_checkpoint_duration_seconds", "Checkpoints.", stats.checkpoint_seconds),
        ("byre_disk_read_duration_seconds", "Reads of rows.", stats.read_seconds),
        ("byre_disk_batch_rows", "Rows of a commit.", stats.batch_rows),
    ):
        yield _to_family(name, text, histogram)
    for name, text, value in (
        ("byre_disk_pruned_rows", "Rows deleted after compaction.", stats.pruned_rows),
        ("byre_disk_vacuumed_pages", "Pages given back.", stats.vacuumed_pages),
        ("byre_disk_full", "Appends refused for want of space.", stats.full),
        (
            "byre_disk_syncs_deferred",
            "Syncs left to the kernel or a thread.",
            stats.syncs_deferred,
        ),
        ("byre_disk_checkpoints_blocking", "Checkpoints that held the writer.", stats.restarts),
    ):
        yield CounterMetricFamily(name, text, value=value)
    yield GaugeMetricFamily("byre_disk_wal_bytes", "Bytes of the WAL in use.", stats.wal_bytes)


def _to_family(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.total)
