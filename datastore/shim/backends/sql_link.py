"""One connection to a network database: made when needed, dropped when it is broken."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from datastore.shim.backends.api import BackendError, NotReady, Unavailable
from datastore.shim.backends.stats import Stats

FIRST_BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 2.0

C = TypeVar("C")


class Driver(Protocol[C]):
    """What a backend knows of its driver: C is the driver's connection."""

    errors: type[Exception]
    """The base of everything that the driver raises."""

    def connect(self) -> C:
        """Connect and set the session up. Raise NotReady with the reason; nothing is left open."""

    def is_usable(self, connection: C) -> bool:
        """Return whether the connection may take another statement; costs no round trip.

        False where the other end has hung up, or a transaction was left open. Hot.
        """

    def close(self, connection: C) -> None:
        """Let go of the connection without a word to the server; never raises or waits."""

    def query(self, connection: C, statement: str, values: Any = None) -> Sequence[Any]:
        """Run one statement in a READ COMMITTED transaction of its own; return its rows."""

    def explain(self, error: Exception) -> BackendError:
        """Return what an error of the driver means to a read: never OutcomeUnknown."""


@contextmanager
def own_connection(driver: Driver[C]) -> Iterator[C]:
    """Give a connection of the caller's own: for a read that lasts, while others go on.

    Raises:
        Unavailable: it cannot be had.
        BackendError: what an error of the driver means to a read.
    """
    try:
        connection = driver.connect()
    except NotReady as error:
        raise Unavailable(str(error)) from error
    try:
        yield connection
    except driver.errors as error:
        raise driver.explain(error) from error
    finally:
        driver.close(connection)


class Link(Generic[C]):
    """A connection of a lane.

    After a failure to connect, calls fail at once until the time for the next try has come, so
    that a database that comes back is not trampled. Nothing is ever sent a second time.
    """

    def __init__(self, driver: Driver[C], stats: Stats) -> None:
        self.driver = driver
        self._stats = stats
        self._lock = threading.Lock()
        self._connection: C | None = None
        self._closed = False
        self._backoff = 0.0
        self._retry_at = 0.0
        self._reason = ""

    @contextmanager
    def use(self) -> Iterator[C]:
        """Give the connection to the caller alone; raises the driver's errors as they are.

        Raises:
            Unavailable: there is no connection, and nothing was sent.
        """
        with self._lock:
            connection = self._get()
            try:
                yield connection
            finally:
                if not self.driver.is_usable(connection):
                    self._drop()

    @contextmanager
    def reading(self) -> Iterator[C]:
        """As `use`, with errors explained as those of a read, and the time taken."""
        started = time.perf_counter()
        try:
            with self.use() as connection:
                yield connection
        except self.driver.errors as error:
            raise self.driver.explain(error) from error
        finally:
            self._stats.read_seconds.observe(time.perf_counter() - started)

    def query(self, statement: str, values: Any = None) -> Sequence[Any]:
        """Run one read, or one statement of upkeep that may be run again."""
        with self.reading() as connection:
            return self.driver.query(connection, statement, values)

    def drop(self) -> None:
        """Close the connection; the next use makes a new one, perhaps to another host."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """Close for good, waiting for a call under way. Idempotent."""
        with self._lock:
            self._closed = True
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self.driver.close(self._connection)
            self._connection = None

    def _get(self) -> C:
        """Return a connection that is up as far as can be told without asking. Hot."""
        if self._closed:
            raise Unavailable("the store is closed")
        connection = self._connection
        if connection is not None:
            if self.driver.is_usable(connection):
                return connection
            self._drop()
        return self._connect()

    def _connect(self) -> C:
        if time.monotonic() < self._retry_at:
            raise Unavailable(self._reason)
        try:
            connection = self.driver.connect()
        except NotReady as error:
            self._reason = str(error)
            self._backoff = min(max(self._backoff * 2, FIRST_BACKOFF_SECONDS), MAX_BACKOFF_SECONDS)
            jitter = random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            self._retry_at = time.monotonic() + self._backoff * jitter
            raise Unavailable(self._reason) from error
        self._backoff = self._retry_at = 0.0
        self._connection = connection
        return connection
