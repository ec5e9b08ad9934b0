"""Opening a store on MariaDB: what is made, and how a refusal is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from datastore.dsn import Access, Dsn, Host, to_target
from datastore.dsn.password import PasswordFile
from datastore.shim.backends.mysql import MysqlBackend
from tests.support import batches
from tests.support.mariadb import MariadbServer, running_mariadb
from tests.support.opening import opened, refusal
from tests.support.running import free_port


@pytest.fixture(scope="module")
def server() -> Iterator[MariadbServer]:
    """A server with users who may do little, one of whom needs a password."""
    with running_mariadb() as server:
        server.execute("CREATE USER limited@'127.0.0.1'")
        server.execute("CREATE USER secretive@'127.0.0.1' IDENTIFIED BY 'wort'")
        yield server


def tables(server: MariadbServer, database: str) -> list[str]:
    return [str(name) for (name,) in server.execute("SHOW TABLES", database=database)]


# -- what is made -------------------------------------------------------------------------------


def test_database_and_tables_are_made(server: MariadbServer, database: str) -> None:
    with opened(MysqlBackend(server.target(database))):
        pass
    names = ["alarm", "auth", "commit", "head", "lease", "log", "member", "sync"]
    assert tables(server, database) == [f"byre_{name}" for name in names]


def test_servers_that_start_at_once_agree(server: MariadbServer, database: str) -> None:
    servers = [MysqlBackend(server.target(database)) for _ in range(6)]
    with ThreadPoolExecutor(len(servers)) as pool:
        heads = set(pool.map(lambda backend: backend.open(), servers))
    for backend in servers:
        backend.close()
    assert len(heads) == 1


@pytest.mark.parametrize("gone", ["byre_sync", "byre_member", "byre_lease"])
def test_a_first_start_that_was_cut_short_is_finished(
    server: MariadbServer, database: str, gone: str
) -> None:
    with opened(MysqlBackend(server.target(database))) as backend:
        head = backend.head()
    server.execute(f"DROP TABLE {gone}", database=database)
    with opened(MysqlBackend(server.target(database))) as backend:
        assert backend.head() == head
        batches.commit(backend, batches.grant(head, (1, 60)))
        assert len(backend.leases()) == 1


def test_tables_that_still_lack_their_first_rows_are_not_damaged(
    server: MariadbServer, database: str
) -> None:
    """As another server's start leaves them for a moment, or for good where it was cut short."""
    with opened(MysqlBackend(server.target(database))):
        pass
    for table in ("byre_head", "byre_sync", "byre_commit"):
        server.execute(f"DELETE FROM {table}", database=database)
    with opened(MysqlBackend(server.target(database))) as backend:
        assert backend.head().revision == 1
        batches.fill(backend, [[b"a"]])


def test_clusters_share_a_database_by_prefix(server: MariadbServer, database: str) -> None:
    target = server.target(database)
    places = [target, replace(target, prefix="second_")]
    for number, place in enumerate(places):
        with opened(MysqlBackend(place)) as backend:
            assert backend.head().revision == 1
            batches.fill(backend, [[b"%d" % number]] * (number + 1))
    for number, place in enumerate(places):
        with opened(MysqlBackend(place)) as backend:
            rows = backend.history(2, 9, 10).rows
            assert [row.meta.key for row in rows] == [b"%d" % number] * (number + 1)


def test_rights_on_rows_are_enough_for_tables_that_are_there(
    server: MariadbServer, database: str
) -> None:
    with opened(MysqlBackend(server.target(database))):
        pass
    server.execute(f"GRANT SELECT,INSERT,UPDATE,DELETE ON {database}.* TO limited@'127.0.0.1'")
    with opened(MysqlBackend(server.target(database, user="limited"))) as backend:
        batches.fill(backend, [[b"a"]])
        assert backend.size().total > 0


def test_a_unix_socket_is_a_way_to_the_server(server: MariadbServer, database: str) -> None:
    target = to_target(Dsn(f"mysql://root@unix({server.socket})/{database}"))
    with opened(MysqlBackend(target)) as backend:
        assert batches.fill(backend, [[b"a"]]).revision == 2


def test_the_first_host_that_can_write_is_taken(server: MariadbServer, database: str) -> None:
    target = server.target(database)
    several = replace(target, hosts=(Host("127.0.0.1", free_port()), *target.hosts))
    with opened(MysqlBackend(several)) as backend:
        assert backend.head().change == 0


# -- rights that are missing --------------------------------------------------------------------


def test_no_database_and_no_right_to_make_it(server: MariadbServer, database: str) -> None:
    reason = refusal(MysqlBackend(server.target(database, user="limited")))
    assert f"CREATE DATABASE `{database}`; GRANT SELECT, INSERT, UPDATE, DELETE, CREATE" in reason
    assert f"ON `{database}`.* TO 'limited'@'127.0.0.1'" in reason
    assert f"127.0.0.1:{server.port}" in reason


def test_no_right_to_make_tables(server: MariadbServer, database: str) -> None:
    server.execute(f"CREATE DATABASE {database}")
    server.execute(f"GRANT SELECT ON {database}.* TO limited@'127.0.0.1'")
    reason = refusal(MysqlBackend(server.target(database, user="limited")))
    assert "CREATE command denied" in reason or "cREATE command denied" in reason
    assert f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON `{database}`" in reason


@pytest.mark.parametrize("right", ["INSERT", "UPDATE", "DELETE"])
def test_a_right_on_rows_that_is_missing_is_found_at_the_start(
    server: MariadbServer, database: str, right: str
) -> None:
    with opened(MysqlBackend(server.target(database))):
        pass
    others = {"SELECT", "INSERT", "UPDATE", "DELETE"} - {right}
    server.execute(f"GRANT {','.join(others)} ON {database}.* TO limited@'127.0.0.1'")
    reason = refusal(MysqlBackend(server.target(database, user="limited")))
    assert right in reason
    assert "TO 'limited'@'127.0.0.1'" in reason


# -- what is not byre's, or not fit -------------------------------------------------------------


def test_data_of_kine_is_not_taken_for_an_empty_store(
    server: MariadbServer, database: str
) -> None:
    server.execute(f"CREATE DATABASE {database}")
    server.execute("CREATE TABLE kine (id INT PRIMARY KEY)", database=database)
    server.execute("INSERT INTO kine VALUES (1)", database=database)
    assert "holds kine's data" in refusal(MysqlBackend(server.target(database)))
    assert tables(server, database) == ["kine"]


def test_another_schema_version_is_left_alone(server: MariadbServer, database: str) -> None:
    with opened(MysqlBackend(server.target(database))):
        pass
    server.execute("UPDATE byre_head SET schema_version = 2", database=database)
    assert "schema 2, this one knows 1" in refusal(MysqlBackend(server.target(database)))


def test_a_store_without_its_head_is_damaged_and_not_begun_anew(
    server: MariadbServer, database: str
) -> None:
    with opened(MysqlBackend(server.target(database))) as backend:
        batches.fill(backend, [[b"a"]])
    server.execute("DELETE FROM byre_head", database=database)
    assert "damaged: restore a backup" in refusal(MysqlBackend(server.target(database)))


def test_a_replica_is_refused(server: MariadbServer, database: str) -> None:
    server.execute("SET GLOBAL read_only = 1")
    try:
        reason = refusal(MysqlBackend(server.target(database)))
    finally:
        server.execute("SET GLOBAL read_only = 0")
    assert "can only be read: it is a replica" in reason


def test_a_packet_limit_below_the_largest_value_is_refused(
    server: MariadbServer, database: str
) -> None:
    server.execute("SET GLOBAL max_allowed_packet = 1048576")
    try:
        reason = refusal(MysqlBackend(server.target(database)))
    finally:
        server.execute("SET GLOBAL max_allowed_packet = 16777216")
    assert "max_allowed_packet=1048576 is too small" in reason


def test_settings_that_lose_commits_are_named(
    server: MariadbServer, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
    try:
        with caplog.at_level(logging.WARNING), opened(MysqlBackend(server.target(database))):
            pass
    finally:
        server.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
    settings = [getattr(record, "setting", "") for record in caplog.records]
    assert settings == ["innodb_flush_log_at_trx_commit=2"]


# -- no way there -------------------------------------------------------------------------------


def test_a_wrong_password_is_told_and_not_shown(server: MariadbServer, database: str) -> None:
    url = f"mysql://secretive:geheim@127.0.0.1:{server.port}/{database}"
    reason = refusal(MysqlBackend(to_target(Dsn(url))))
    assert "correct the password or the user" in reason
    assert "geheim" not in reason


def test_nobody_listens(database: str) -> None:
    port = free_port()
    reason = refusal(MysqlBackend(to_target(Dsn(f"mysql://u@127.0.0.1:{port}/{database}"))))
    assert f"127.0.0.1:{port}" in reason
    assert "is the server running, and listening there?" in reason


def test_no_such_host(database: str) -> None:
    reason = refusal(MysqlBackend(to_target(Dsn(f"mysql://u@database.invalid/{database}"))))
    assert "is the name of the host right?" in reason


def test_no_such_socket(database: str, tmp_path: Path) -> None:
    reason = refusal(MysqlBackend(to_target(Dsn(f"mysql://u@unix({tmp_path}/no)/{database}"))))
    assert "is the name of the socket right?" in reason


def test_a_password_file_that_is_missing(
    server: MariadbServer, database: str, tmp_path: Path
) -> None:
    target = to_target(
        Dsn(server.url(database, "secretive")), Access(password=PasswordFile(tmp_path / "none"))
    )
    assert "the password file" in refusal(MysqlBackend(target))
