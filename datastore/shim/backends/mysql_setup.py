"""The first start on MySQL and MariaDB: database and tables, made when missing and permitted.

Statements that make tables commit by themselves, so a start may be interrupted between any two:
the next one makes what is missing. Several servers may start at once: one of them makes, under a
lock of a name of its own. Where everything is there, nothing is locked or made.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pymysql
from sqlalchemy.dialects import mysql

from datastore.dsn.target import Target
from datastore.shim.backends import schema
from datastore.shim.backends.api import NotReady
from datastore.shim.backends.int64 import to_signed
from datastore.shim.backends.limits import FIRST_REVISION, NO_BATCH, SCHEMA_VERSION
from datastore.shim.backends.mysql_append import quote
from datastore.shim.backends.mysql_errors import DENIED, EXISTS, NO_DATABASE, to_code, to_line
from datastore.shim.backends.mysql_session import MysqlDriver, Session
from datastore.shim.backends.sql_reads import Names

log = logging.getLogger(__name__)

_TABLES: Final = ("head", "commit", "log", "lease", "auth", "alarm", "member")
_SYNC: Final = "sync"
_LOCK_SECONDS: Final = 4
RIGHTS: Final = "SELECT, INSERT, UPDATE, DELETE"
_RIGHTS_TO_MAKE: Final = f"{RIGHTS}, CREATE, ALTER, INDEX"

_FOUND = (
    "SELECT table_name FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_name IN (%s)"
)
_FIRST_ROWS = """
INSERT IGNORE INTO {commit} VALUES (0, %d, %b, 0, UTC_TIMESTAMP(6));
INSERT IGNORE INTO %b VALUES (1, 0);
INSERT IGNORE INTO {head} VALUES (1, 0, %d, -1, -1, %d, %d)
"""
_NEWEST = """
SELECT (SELECT COUNT(*) FROM {head}), (SELECT COALESCE(MAX({change}), 0) FROM {commit})
"""
_VERSION = "SELECT schema_version FROM {head} WHERE id = 1"
_TRY = """SELECT 1 FROM {0} WHERE 1 = 0; UPDATE {0} SET {1} = {1} WHERE 1 = 0;
DELETE FROM {0} WHERE 1 = 0; INSERT INTO {0} SELECT * FROM {0} WHERE 1 = 0;
"""


def to_names(target: Target) -> Names:
    """Return the names of the target's tables; the session's database is that of the target."""
    tables = {name: _quote(target.prefix + name) for name in _TABLES}
    return Names(
        **tables,
        change="`change`",
        key="`key`",
        no_bytes="NULL",
        # Some versions have words in place of the numbers.
        replica="(@@global.read_only NOT IN ('0', 'OFF') OR @@innodb_read_only)",
        remaining="TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), deadline) / 1e6",
    )


def to_sync(target: Target) -> str:
    """Return the name of the table whose row is written to sync the log on disk."""
    return _quote(target.prefix + _SYNC)


def set_up(driver: MysqlDriver) -> None:
    """Make what is missing and check what is there.

    Raises:
        NotReady: the reason, with the right that is missing where it is one.
    """
    target = driver.target
    session = _connect(driver)
    try:
        _check_server(session, target)
        names = to_names(target)
        if not _is_complete(session, target, names):
            with _lock(session, target):
                _create(session, target, names)
        _check_tables(session, target, names)
    except pymysql.Error as error:
        if to_code(error) in DENIED:
            raise NotReady(_explain_denied(session, target, error)) from error
        raise NotReady(f"{target.place} cannot be set up: {to_line(error)}") from error
    finally:
        session.close()


def _connect(driver: MysqlDriver) -> Session:
    """Connect; a database that is missing is made on the way."""
    try:
        return driver.connect()
    except NotReady as error:
        cause = error.__cause__
        # Who has no right to a database that is missing is told that access is denied.
        if not isinstance(cause, pymysql.Error) or to_code(cause) not in {NO_DATABASE, 1044}:
            raise
    session = driver.connect_to(None)
    try:
        _create_database(session, driver.target)
    finally:
        session.close()
    return driver.connect()


def _create_database(session: Session, target: Target) -> None:
    name = _quote(target.database)
    try:
        # Not "if not exists", which is denied as well to those who may not make it.
        session.run(f"CREATE DATABASE {name} CHARACTER SET binary")
    except pymysql.Error as error:
        if to_code(error) in EXISTS:
            return
        user = _user(session)
        raise NotReady(
            f"user {user} may not use the database {target.database} at {target.place}, or it is "
            f"missing and the user may not make it: CREATE DATABASE {name}; "
            f"GRANT {_RIGHTS_TO_MAKE} ON {name}.* TO {user}"
        ) from error
    log.info("database created", extra={"database": target.database})


def _check_server(session: Session, target: Target) -> None:
    facts = session.facts
    if facts.replica:
        raise NotReady(
            f"{target.place} can only be read: it is a replica, or set to read only; "
            "connect to the primary"
        )
    if facts.refusals:
        raise NotReady(f"{target.place} cannot be used: {'; '.join(facts.refusals)}")
    for weakness in facts.weaknesses:
        log.warning(
            "the database may lose what it has confirmed when its machine fails",
            extra={"setting": weakness},
        )


def _find_tables(session: Session, target: Target) -> set[str]:
    names = ", ".join(f"'{target.prefix}{name}'" for name in (*_TABLES, _SYNC))
    return {row[0].decode() for row in session.run(_FOUND % names)[0].rows}


def _is_complete(session: Session, target: Target, names: Names) -> bool:
    """Return whether all is made: the row of the head is the last thing that a start makes."""
    if len(_find_tables(session, target)) <= len(_TABLES):
        return False
    return bool(session.run(names.fill(_VERSION))[0].rows)


@contextmanager
def _lock(session: Session, target: Target) -> Iterator[None]:
    """Let one server make the tables; Galera, which has no such lock, has to do without."""
    text = f"byre start {target.database} {target.prefix}"
    name = f"byre {hashlib.sha256(text.encode()).hexdigest()[:40]}"
    with suppress(pymysql.Error):
        session.run(f"SELECT GET_LOCK('{name}', {_LOCK_SECONDS})")
    yield
    with suppress(pymysql.Error):
        session.run(f"SELECT RELEASE_LOCK('{name}')")


def _create(session: Session, target: Target, names: Names) -> None:
    """Make the tables that are missing, and their first rows."""
    found = _find_tables(session, target)
    if not found:
        _refuse_kine(session, target)
    dialect = mysql.dialect()
    tables = schema.build_network_tables(target.prefix, None, dialect.name)
    for statement in schema.create_network_statements(tables, dialect):
        try:
            session.run(statement)
        except pymysql.Error as error:
            if to_code(error) not in EXISTS:
                raise
    ((heads, newest),) = session.run(names.fill(_NEWEST))[0].rows
    if heads == 0 and newest == 0:
        cluster_id = to_signed(secrets.randbits(64))
        statements = names.fill(_FIRST_ROWS).encode()
        session.run(
            statements
            % (
                FIRST_REVISION, quote(NO_BATCH), to_sync(target).encode(),
                FIRST_REVISION, cluster_id, SCHEMA_VERSION,
            )
        )  # fmt: skip
    log.info("tables created", extra={"prefix": target.prefix})


def _refuse_kine(session: Session, target: Target) -> None:
    found = session.run(_FOUND % "'kine'")[0].rows
    if found and session.run("SELECT 1 FROM kine LIMIT 1")[0].rows:
        raise NotReady(
            f"{target.place} holds kine's data, which byre does not take over: choose another "
            "database, or run kine itself on this one"
        )


def _check_tables(session: Session, target: Target, names: Names) -> None:
    found = session.run(names.fill(_VERSION))[0].rows
    if not found:
        raise NotReady(f"byre's tables in {target.place} are damaged: restore a backup")
    ((version,),) = found
    if version != SCHEMA_VERSION:
        raise NotReady(
            f"{target.place} was written by another byre (schema {version}, this one knows "
            f"{SCHEMA_VERSION}): start that version, nothing was changed"
        )
    columns = {"head": "id", "commit": "kinds", "auth": "kind", "alarm": "kind", _SYNC: "id"}
    statements = "".join(
        _TRY.format(_quote(target.prefix + name), columns.get(name, "id"))
        for name in (*_TABLES, _SYNC)
    )
    session.run(statements.rstrip("; \n"))


def _explain_denied(session: Session, target: Target, error: Exception) -> str:
    """Return which right is missing."""
    user = _user(session)
    name = _quote(target.database)
    return (
        f"user {user} may not use or make byre's tables in {target.place}: {to_line(error)}; "
        f"GRANT {_RIGHTS_TO_MAKE} ON {name}.* TO {user}"
    )


def _user(session: Session) -> str:
    """Return who the session is to the server, as GRANT wants it."""
    name, _, host = session.run("SELECT CURRENT_USER()")[0].rows[0][0].decode().rpartition("@")
    return f"'{name}'@'{host}'"


def _quote(name: str) -> str:
    return "`{}`".format(name.replace("`", "``"))
