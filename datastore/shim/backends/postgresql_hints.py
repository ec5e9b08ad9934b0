"""Hints between servers by LISTEN and NOTIFY: sooner than the poll, never data.

A notification inside the append would hold a lock of the whole instance through its fsync, and
halve everybody's commits. So a thread of its own sends one for all commits of the last few
milliseconds, without waiting for the disk, and only while other servers live (log.md A10).
"""

from __future__ import annotations

import hashlib
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

import psycopg

from datastore.dsn.target import Target
from datastore.shim.backends.api import BackendError, NotReady
from datastore.shim.backends.limits import MEMBER_SECONDS
from datastore.shim.backends.postgresql_session import PostgresqlDriver, Session
from datastore.shim.backends.sql_link import (
    FIRST_BACKOFF_SECONDS,
    MAX_BACKOFF_SECONDS,
    Link,
)
from datastore.shim.backends.stats import Stats

log = logging.getLogger(__name__)

NOTIFY_SECONDS: Final = 0.01
"""A server sends at most one notification in this time."""
LISTEN_SECONDS: Final = 0.2
"""How soon a listener notices that it is to end."""
CHECK_SECONDS: Final = 10.0
"""How often a listener asks whether its server is still there."""

_NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, %s)"


def to_channel(target: Target, schema_name: str) -> str:
    """Return the channel of a store; a hash, since names are at most 63 bytes."""
    digest = hashlib.sha256(f"{schema_name}.{target.prefix}".encode()).hexdigest()
    return f"byre_{digest[:16]}"


class Hints:
    """One server's notifications: `committed` sends, `listen` hears those of others."""

    def __init__(self, driver: PostgresqlDriver, channel: str, stats: Stats) -> None:
        self._driver = driver
        self._channel = channel
        self._me = secrets.token_hex(8)
        self._link: Link[Session] = Link(driver, stats)
        self._due = threading.Event()
        self._stopped = threading.Event()
        self._alone_until = 0.0
        self._thread = threading.Thread(target=self._run, name="byre-notify", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """Stop sending. Idempotent."""
        self._stopped.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()
        self._link.close()

    def committed(self) -> None:
        """Let others know soon. Hot."""
        if not self._due.is_set() and time.monotonic() >= self._alone_until:
            self._due.set()

    def saw_members(self, *, alone: bool) -> None:
        """Take note of whether there is anybody to tell."""
        self._alone_until = time.monotonic() + MEMBER_SECONDS if alone else 0.0

    def listen(self, wake: Callable[[], None]) -> Listener:
        """Call `wake` for the notifications of other servers."""
        target = self._driver.target
        driver = PostgresqlDriver(target.listen) if target.listen else self._driver
        return Listener(driver, self._channel, self._me, wake)

    def _run(self) -> None:
        while True:
            self._due.wait()
            if self._stopped.is_set():
                return
            self._due.clear()
            try:
                self._link.query(_NOTIFY, (self._channel, self._me))
            except BackendError as error:
                log.debug("a hint was not sent", extra={"reason": str(error)})
            self._stopped.wait(NOTIFY_SECONDS)


class Listener:
    """A thread with a direct connection that listens; without one it only tries again."""

    def __init__(
        self, driver: PostgresqlDriver, channel: str, me: str, wake: Callable[[], None]
    ) -> None:
        self._driver = driver
        self._channel = channel
        self._me = me
        self._wake = wake
        self._stopped = threading.Event()
        self._interrupted = False
        self.listening = threading.Event()
        """Set while notifications arrive."""
        self._thread = threading.Thread(target=self._run, name="byre-listen", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Idempotent."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        delay = FIRST_BACKOFF_SECONDS
        while not self._stopped.is_set():
            try:
                session = self._driver.connect()
            except NotReady as error:
                log.debug("cannot listen", extra={"reason": str(error)})
            else:
                try:
                    if session.pooled:
                        log.warning(
                            "a pooler keeps notifications away: commits of other servers are "
                            "polled for; name a direct data source to listen on"
                        )
                        return
                    delay = FIRST_BACKOFF_SECONDS
                    self._hear(session)
                except psycopg.Error as error:
                    log.debug("listening was interrupted", extra={"reason": str(error)})
                finally:
                    self.listening.clear()
                    session.close()
            self._stopped.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay = min(delay * 2, MAX_BACKOFF_SECONDS)

    def _hear(self, session: Session) -> None:
        """Wake for as long as the connection holds."""
        session.execute(f"LISTEN {self._channel}")
        self.listening.set()
        if self._interrupted:
            self._wake()  # nobody knows what came meanwhile
        self._interrupted = True
        asked = time.monotonic()
        while not self._stopped.is_set():
            # Not to gather them for the whole time: the first one is the news.
            notes = session.notifies(timeout=LISTEN_SECONDS, stop_after=1)
            heard = [note.payload for note in notes]
            if any(payload != self._me for payload in heard):
                self._wake()
            if time.monotonic() - asked >= CHECK_SECONDS:
                session.execute("SELECT 1")
                asked = time.monotonic()
