"""Opening a store on PostgreSQL: what is made, and how a refusal is told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from datastore.dsn import Access, Dsn, Host, to_target
from datastore.dsn.password import PasswordFile
from datastore.shim.backends.api import Unavailable
from datastore.shim.backends.postgresql import PostgresqlBackend
from tests.support import batches
from tests.support.databases import PostgresqlServer, running_postgresql
from tests.support.opening import opened, refusal
from tests.support.pgbouncer import pgbouncer_before
from tests.support.running import free_port


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A server with users who may do little, one of whom needs a password."""
    with running_postgresql() as server:
        access = server.data / "pg_hba.conf"
        access.write_text(f"host all secretive all scram-sha-256\n{access.read_text()}")
        for statement in (
            "CREATE ROLE limited LOGIN",
            "CREATE ROLE secretive LOGIN CREATEDB PASSWORD 'first'",
            "SELECT pg_reload_conf()",
        ):
            server.execute(statement)
        yield server


# -- what is made -------------------------------------------------------------------------------


def test_database_schema_and_tables_are_made(server: PostgresqlServer, database: str) -> None:
    with opened(PostgresqlBackend(server.target(database, search_path="Apart"))):
        found = server.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'Apart' ORDER BY 1",
            database=database,
        )
    names = ["alarm", "auth", "commit", "head", "lease", "log", "member"]
    assert [name for (name,) in found] == [f"byre_{name}" for name in names]


def test_servers_that_start_at_once_agree(server: PostgresqlServer, database: str) -> None:
    servers = [PostgresqlBackend(server.target(database, search_path="new")) for _ in range(6)]
    with ThreadPoolExecutor(len(servers)) as pool:
        heads = set(pool.map(lambda backend: backend.open(), servers))
    for backend in servers:
        backend.close()
    assert len(heads) == 1


def test_a_pooler_is_enough_for_a_first_start(server: PostgresqlServer, database: str) -> None:
    with (
        pgbouncer_before(server) as pooler,
        opened(PostgresqlBackend(pooler.target(database))) as backend,
    ):
        assert batches.fill(backend, [[b"a"]]).revision == 2


def test_clusters_share_a_database_by_prefix_and_by_schema(
    server: PostgresqlServer, database: str
) -> None:
    target = server.target(database)
    places = [
        target, replace(target, prefix="second_"), replace(target, schema="third"),
    ]  # fmt: skip
    for number, place in enumerate(places):
        with opened(PostgresqlBackend(place)) as backend:
            assert backend.head().revision == 1
            batches.fill(backend, [[b"%d" % number]] * (number + 1))
    revisions = []
    for place in places:
        with opened(PostgresqlBackend(place)) as backend:
            revisions.append(backend.head().revision)
            assert len({row.meta.key for row in backend.history(2, 9, 10).rows}) == 1
    assert revisions == [2, 3, 4]


def test_an_owner_of_nothing_but_rights_on_tables_may_serve(
    server: PostgresqlServer, database: str
) -> None:
    with opened(PostgresqlBackend(server.target(database))):
        pass
    server.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO limited",
        database=database,
    )
    with opened(PostgresqlBackend(server.target(database, user="limited"))) as backend:
        batches.fill(backend, [[b"a"]])


# -- rights that are missing --------------------------------------------------------------------


def test_no_database_and_no_right_to_make_it(server: PostgresqlServer, database: str) -> None:
    reason = refusal(PostgresqlBackend(server.target(database, user="limited")))
    assert f"CREATE DATABASE {database} OWNER limited, or ALTER ROLE limited CREATEDB" in reason
    assert f"127.0.0.1:{server.port}" in reason


def test_no_right_to_make_tables(server: PostgresqlServer, database: str) -> None:
    server.execute(f"CREATE DATABASE {database}")
    server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database=database)
    reason = refusal(PostgresqlBackend(server.target(database, user="limited")))
    assert "GRANT CREATE ON SCHEMA public TO limited" in reason


def test_no_right_to_make_the_schema(server: PostgresqlServer, database: str) -> None:
    server.execute(f"CREATE DATABASE {database}")
    target = server.target(database, user="limited", search_path="apart")
    assert "CREATE SCHEMA apart AUTHORIZATION limited" in refusal(PostgresqlBackend(target))


def test_no_right_to_use_the_schema(server: PostgresqlServer, database: str) -> None:
    with opened(PostgresqlBackend(server.target(database, search_path="apart"))):
        pass
    target = server.target(database, user="limited", search_path="apart")
    assert "permission denied for schema apart" in refusal(PostgresqlBackend(target))


def test_no_right_to_write_a_table(server: PostgresqlServer, database: str) -> None:
    with opened(PostgresqlBackend(server.target(database))):
        pass
    server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO limited", database=database)
    reason = refusal(PostgresqlBackend(server.target(database, user="limited")))
    assert 'GRANT SELECT, INSERT, UPDATE, DELETE ON "public"."byre_head" TO limited' in reason


# -- what is there already ----------------------------------------------------------------------


def test_kines_data_is_not_taken_over(server: PostgresqlServer, database: str) -> None:
    server.execute(f"CREATE DATABASE {database}")
    server.execute("CREATE TABLE kine (id bigint)", database=database)
    with opened(PostgresqlBackend(server.target(database))):
        pass  # an empty table is nobody's data
    target = server.target(database, search_path="second")
    server.execute("CREATE SCHEMA second", database=database)
    server.execute("CREATE TABLE second.kine AS SELECT 1 AS id", database=database)
    assert "holds kine's data" in refusal(PostgresqlBackend(target))


def test_a_newer_store_is_left_as_it_is(server: PostgresqlServer, database: str) -> None:
    with opened(PostgresqlBackend(server.target(database))):
        pass
    server.execute("UPDATE byre_head SET schema_version = 99", database=database)
    reason = refusal(PostgresqlBackend(server.target(database)))
    assert "schema 99" in reason
    assert "nothing was changed" in reason


# -- no way in ----------------------------------------------------------------------------------


def test_nobody_listens() -> None:
    port = free_port()
    target = to_target(Dsn(f"postgresql://u:geheim@127.0.0.1:{port}/kubernetes"))
    reason = refusal(PostgresqlBackend(target))
    assert f"127.0.0.1:{port}, database kubernetes: " in reason
    assert "Connection refused; is the server running" in reason
    assert "geheim" not in reason


def test_no_such_host() -> None:
    target = to_target(Dsn("postgresql://db.invalid/kubernetes"))
    reason = refusal(PostgresqlBackend(target))
    assert "db.invalid:5432" in reason
    assert "is the name of the host right?" in reason


def test_no_such_socket(tmp_path: Path) -> None:
    target = replace(to_target(Dsn("postgresql:///k")), hosts=(Host(str(tmp_path), 5432),))
    reason = refusal(PostgresqlBackend(target))
    assert str(tmp_path) in reason
    assert "is the socket's directory right?" in reason


def test_a_server_without_tls_where_tls_is_wanted(server: PostgresqlServer, database: str) -> None:
    reason = refusal(PostgresqlBackend(server.target(database, sslmode="require")))
    assert "does not support SSL" in reason
    assert "TLS mode" in reason


def test_a_wrong_password_and_one_that_is_changed(
    server: PostgresqlServer, database: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("wrong")
    url = Dsn(server.url(database, "secretive"))
    target = to_target(url, Access(password=PasswordFile(file)))
    reason = refusal(PostgresqlBackend(target))
    assert "password authentication failed" in reason
    assert "wrong" not in reason
    file.write_text("first")
    with opened(PostgresqlBackend(target)) as backend:
        head = backend.head()
        server.execute("ALTER ROLE secretive PASSWORD 'second'")
        file.write_text("second")
        server.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s",
            [database],
        )
        assert backend.head() == head
        file.unlink()
        server.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s",
            [database],
        )
        with pytest.raises(Unavailable, match="password file"):
            backend.head()


def test_all_hosts_of_a_list_are_tried(server: PostgresqlServer, database: str) -> None:
    target = server.target(database)
    hosts = (Host("127.0.0.1", free_port()), *target.hosts)
    several = replace(target, hosts=hosts, session_attrs="read-write")
    with opened(PostgresqlBackend(several)) as backend:
        assert backend.head().revision == 1


def test_several_reasons_are_told_in_one_line(database: str) -> None:
    hosts = (Host("127.0.0.1", free_port()), Host("127.0.0.1", free_port()))
    target = replace(to_target(Dsn("postgresql://u@h/k")), hosts=hosts)
    reason = refusal(PostgresqlBackend(target))
    assert "\n" not in reason
    assert "onnection refused" in reason
