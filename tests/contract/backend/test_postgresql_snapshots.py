"""Old snapshots on PostgreSQL are named: they keep dead versions of the head from going."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from datastore.shim.backends.postgresql_session import PostgresqlDriver, Session
from datastore.shim.backends.postgresql_setup import set_up, to_names
from datastore.shim.backends.postgresql_snapshots import (
    OLD_SECONDS,
    Holder,
    SnapshotWatch,
    find_holder,
)
from datastore.shim.backends.sql_link import Link
from datastore.shim.backends.sql_reads import Names
from datastore.shim.backends.stats import Stats
from tests.support.databases import PostgresqlServer
from tests.support.running import eventually

MANY_UPDATES = """
DO $$ BEGIN FOR i IN 1..20000 LOOP UPDATE byre_head SET pruned = pruned; END LOOP; END $$
"""


@pytest.fixture
def store(server: PostgresqlServer, database: str) -> Iterator[tuple[Link[Session], Names]]:
    target = server.target(database)
    driver = PostgresqlDriver(target)
    names = to_names(target, set_up(driver))
    link: Link[Session] = Link(driver, Stats())
    yield link, names
    link.close()


def test_who_holds_a_snapshot_is_found_until_it_is_released(
    server: PostgresqlServer, database: str, store: tuple[Link[Session], Names]
) -> None:
    assert find_holder(*store, 0.0) is None
    with closing(psycopg.connect(server.url(database), application_name="a dump")) as dump:
        dump.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        dump.execute("SELECT 1")
        holder = find_holder(*store, 0.0)
        assert holder is not None
        assert (holder.pid, holder.application) == (dump.info.backend_pid, "a dump")
        assert find_holder(*store, OLD_SECONDS) is None
        dump.commit()
        assert find_holder(*store, 0.0) is None


def test_versions_that_nobody_may_remove_are_noticed_without_rights_on_other_sessions(
    server: PostgresqlServer, database: str, store: tuple[Link[Session], Names]
) -> None:
    with closing(psycopg.connect(server.url(database), autocommit=True)) as other:
        other.execute("ALTER TABLE byre_head SET (autovacuum_enabled = false)")
        other.execute(MANY_UPDATES)
    # Counts of a session are seen when it has ended.
    unseen = Holder(0, "", "", 0.0)
    eventually(lambda: find_holder(*store, OLD_SECONDS) == unseen, "dead versions are counted")


def test_a_holder_is_warned_of_once(
    server: PostgresqlServer,
    database: str,
    store: tuple[Link[Session], Names],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    link, names = store
    monkeypatch.setattr("datastore.shim.backends.postgresql_snapshots.OLD_SECONDS", 0.0)
    watch = SnapshotWatch(names)
    with closing(psycopg.connect(server.url(database))) as dump:
        dump.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        dump.execute("SELECT 1")
        with caplog.at_level(logging.WARNING):
            watch.look(link, 1.0)
            watch.look(link, 2.0)
        (record,) = caplog.records
        assert str(dump.info.backend_pid) in record.getMessage()
