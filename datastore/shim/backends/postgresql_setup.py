"""The first start on PostgreSQL: database, schema and tables, made when missing and permitted.

Several servers may start at once: what makes tables runs in one transaction under an advisory
lock. Where everything is there, nothing is locked and no right to create is needed.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.errors import DuplicateDatabase, InsufficientPrivilege, UniqueViolation
from psycopg.sql import SQL, Identifier
from sqlalchemy.dialects import postgresql

from datastore.dsn.target import Target
from datastore.shim.backends import schema
from datastore.shim.backends.api import NotReady, Unreachable
from datastore.shim.backends.int64 import to_signed
from datastore.shim.backends.limits import FIRST_REVISION, NO_BATCH, SCHEMA_VERSION
from datastore.shim.backends.postgresql_errors import to_line
from datastore.shim.backends.postgresql_refusals import explain_refusal
from datastore.shim.backends.postgresql_session import (
    BEGIN,
    SET_LOCAL,
    PostgresqlDriver,
    Session,
)
from datastore.shim.backends.sql_reads import Names

log = logging.getLogger(__name__)

# Databases that a server has from the beginning, to ask about others.
_OTHER_DATABASES = ("postgres", "template1")
# PgBouncer's server_login_retry, and some more.
_POOLER_SECONDS = 20.0
_AGAIN_SECONDS = 0.2
_TABLES = ("head", "commit", "log", "lease", "auth", "alarm", "member")
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
# Protobuf does not compress: trying costs the server time and saves nothing.
_STORE_PLAIN = "ALTER TABLE {log} ALTER value SET STORAGE EXTERNAL"
_FIRST_HEAD = "INSERT INTO {head} VALUES (1, 0, %s, -1, -1, %s, %s)"
_FIRST_COMMIT = "INSERT INTO {commit} VALUES (0, %s, %s, 0)"
_VERSION = "SELECT schema_version FROM {head} WHERE id = 1"
_EXISTS = (
    "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
    "ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s)"
)
_REPLICA = "(pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on')"


def to_names(target: Target, schema_name: str) -> Names:
    """Return the names of the target's tables, always with their schema."""
    tables = {name: _quote(schema_name, target.prefix + name) for name in _TABLES}
    return Names(
        **tables,
        change="change",
        key="key",
        no_bytes="NULL::bytea",
        replica=_REPLICA,
        remaining="extract(epoch FROM deadline - clock_timestamp())::float8",
    )


def to_lock_key(target: Target, schema_name: str, purpose: str) -> int:
    """Return the number of an advisory lock; those of one database are one name space."""
    text = f"byre {purpose} {schema_name} {target.prefix}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], signed=True)


def set_up(driver: PostgresqlDriver) -> str:
    """Make what is missing, check what is there, and return the schema's name.

    Raises:
        NotReady: the reason, with the right that is missing where it is one.
    """
    target = driver.target
    try:
        session = _connect(driver)
    except psycopg.Error as error:
        raise Unreachable(explain_refusal(error, target)) from error
    try:
        _check_server(session, target)
        schema_name = _find_schema(session, target)
        names = to_names(target, schema_name)
        if not _exists(session, schema_name, target.prefix + "head"):
            _create(session, target, schema_name, names)
        _check_tables(session, target, names)
    except InsufficientPrivilege as error:
        raise NotReady(
            f"user {session.info.user} may not use byre's tables in {target.place}: "
            f"{to_line(error)}; let their owner GRANT it"
        ) from error
    except psycopg.Error as error:
        raise NotReady(f"{target.place} cannot be set up: {to_line(error)}") from error
    else:
        return schema_name
    finally:
        session.close()


def _connect(driver: PostgresqlDriver) -> Session:
    """Connect; a database that is missing is made on the way."""
    try:
        return driver.connect()
    except NotReady as error:
        for other in _OTHER_DATABASES:
            try:
                session = driver.connect_to(other)
            except NotReady:
                continue
            try:
                if _has_database(session, driver.target.database):
                    return driver.connect()  # another server has made it just now, or it fails
                _create_database(session, driver.target)
                return _connect_again(driver)
            finally:
                session.close()
        raise error from error.__cause__


def _connect_again(driver: PostgresqlDriver) -> Session:
    """Connect to the new database; a pooler takes a while to believe that it is there."""
    until = time.monotonic() + _POOLER_SECONDS
    while True:
        try:
            return driver.connect()
        except NotReady:
            if time.monotonic() >= until:
                raise
            time.sleep(_AGAIN_SECONDS)


def _has_database(session: Session, name: str) -> bool:
    found = session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
    return found.fetchone() is not None


def _create_database(session: Session, target: Target) -> None:
    try:
        session.execute(SQL("CREATE DATABASE {}").format(Identifier(target.database)))
    except (DuplicateDatabase, UniqueViolation):
        pass  # another server was quicker
    except InsufficientPrivilege as error:
        user = session.info.user
        raise NotReady(
            f"there is no database {target.database} at {target.place}, and user {user} may not "
            f"make it: CREATE DATABASE {target.database} OWNER {user}, or ALTER ROLE {user} "
            "CREATEDB"
        ) from error
    else:
        log.info("database created", extra={"database": target.database})


def _check_server(session: Session, target: Target) -> None:
    if _one(session, f"SELECT {_REPLICA}"):
        raise NotReady(
            f"{target.place} can only be read: it is a replica, or set to read only; "
            "connect to the primary"
        )
    for setting in ("fsync", "full_page_writes"):
        if _one(session, f"SELECT current_setting('{setting}')") == "off":
            log.warning(
                "the database may lose what it has confirmed when its machine fails",
                extra={"setting": f"{setting}=off"},
            )


def _find_schema(session: Session, target: Target) -> str:
    """Return the schema to use, which is made when it is named, missing and permitted."""
    if not target.schema:
        found = _one(session, "SELECT current_schema()")
        if found is None:
            raise NotReady(
                f"no schema of the search path exists in {target.place}: name a schema, "
                "or CREATE SCHEMA public"
            )
        return str(found)
    if _one(session, "SELECT to_regnamespace(quote_ident(%s)) IS NOT NULL", target.schema):
        return target.schema
    try:
        session.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(target.schema)))
    except UniqueViolation:
        pass  # another server was quicker
    except InsufficientPrivilege as error:
        user, database = session.info.user, target.database
        raise NotReady(
            f"there is no schema {target.schema} in {target.place}, and user {user} may not make "
            f"it: CREATE SCHEMA {target.schema} AUTHORIZATION {user}, or GRANT CREATE ON DATABASE "
            f"{database} TO {user}"
        ) from error
    return target.schema


def _create(session: Session, target: Target, schema_name: str, names: Names) -> None:
    with _transaction(session):
        key = to_lock_key(target, schema_name, "start")
        session.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
        if _exists(session, schema_name, target.prefix + "head"):
            return
        _refuse_kine(session, target, schema_name)
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        tables = schema.build_network_tables(target.prefix, schema_name, dialect.name)
        try:
            for statement in schema.create_network_statements(tables, dialect):
                session.execute(statement)
        except InsufficientPrivilege as error:
            user = session.info.user
            raise NotReady(
                f"user {user} may not make tables in schema {schema_name} of {target.place}: "
                f"GRANT CREATE ON SCHEMA {schema_name} TO {user}, or name a schema of its own"
            ) from error
        session.execute(names.fill(_STORE_PLAIN))
        cluster_id = to_signed(secrets.randbits(64))
        session.execute(names.fill(_FIRST_HEAD), (FIRST_REVISION, cluster_id, SCHEMA_VERSION))
        session.execute(names.fill(_FIRST_COMMIT), (FIRST_REVISION, NO_BATCH))
    log.info("tables created", extra={"schema": schema_name, "prefix": target.prefix})


def _refuse_kine(session: Session, target: Target, schema_name: str) -> None:
    table = _quote(schema_name, "kine")
    if _exists(session, schema_name, "kine") and _one(session, f"SELECT EXISTS (TABLE {table})"):
        raise NotReady(
            f"{target.place} holds kine's data, which byre does not take over: choose another "
            "database or schema, or run kine itself on this one"
        )


def _check_tables(session: Session, target: Target, names: Names) -> None:
    version = _one(session, names.fill(_VERSION))
    if version is None:
        raise NotReady(f"byre's tables in {target.place} are damaged: restore a backup")
    if version != SCHEMA_VERSION:
        raise NotReady(
            f"{target.place} was written by another byre (schema {version}, this one knows "
            f"{SCHEMA_VERSION}): start that version, nothing was changed"
        )
    for table in names[: len(_TABLES)]:
        for right in _RIGHTS:
            if not _one(session, "SELECT has_table_privilege(%s, %s)", table, right):
                user = session.info.user
                raise NotReady(
                    f"user {user} may not use the table {table} of {target.place}: "
                    f"GRANT {', '.join(_RIGHTS)} ON {table} TO {user}"
                )


def _quote(*parts: str) -> str:
    return Identifier(*parts).as_string(None)


def _exists(session: Session, schema_name: str, table: str) -> bool:
    # Read from the catalog: to_regclass() may answer from a cache what was so before the lock.
    return bool(_one(session, _EXISTS, schema_name, table))


def _one(session: Session, statement: str, *values: str) -> object:
    found = session.execute(statement, values or None).fetchone()
    return None if found is None else found[0]


@contextmanager
def _transaction(session: Session) -> Iterator[None]:
    session.execute(BEGIN)
    try:
        session.execute(SET_LOCAL)
        yield
        session.execute("COMMIT")
    except BaseException:
        session.execute("ROLLBACK")
        raise
