"""Plain counters of a backend, for whoever shows metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
ROWS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Histogram:
    """Observations counted by upper bound; the last count is of those above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one. Hot."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Stats:
    """What a SQL backend did since it was opened; read at any time from any thread."""

    __slots__ = (
        "append_seconds",
        "batch_rows",
        "checkpoint_seconds",
        "full",
        "pruned_rows",
        "read_seconds",
        "restarts",
        "sync_seconds",
        "syncs_deferred",
        "vacuumed_pages",
        "wal_bytes",
    )

    def __init__(self) -> None:
        self.append_seconds = Histogram(SECONDS)  # statements and commit, without the sync
        self.sync_seconds = Histogram(SECONDS)
        self.read_seconds = Histogram(SECONDS)
        self.checkpoint_seconds = Histogram(SECONDS)
        self.batch_rows = Histogram(ROWS)
        self.syncs_deferred = 0  # syncs that the event loop did not wait for
        self.restarts = 0  # checkpoints that had to hold the writer
        self.wal_bytes = 0  # bytes of the WAL in use when last looked at
        self.pruned_rows = 0
        self.vacuumed_pages = 0
        self.full = 0  # appends refused for want of space
