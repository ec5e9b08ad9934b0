"""The tables, for every database, as SQLAlchemy describes them (log.md H).

Numbers are 64 bits everywhere; keys and values are bytes, compared byte by byte. Unsigned 64-bit
identities (cluster, member) are stored as the signed number with the same bits.

SQLite has no `member` table, no deadlines and no moving head: the last commit row says where the
log stands, which saves a page per commit (write-path.md 5.4).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

PREFIX = "byre_"

_HEAD_STORAGE = {
    "fillfactor": 10,
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 500,
}

Integer64 = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
Small = SmallInteger().with_variant(sqlite.INTEGER(), "sqlite")
Bytes = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
Name = LargeBinary().with_variant(mysql.VARBINARY(760), "mysql", "mariadb")
Words = Text().with_variant(mysql.VARBINARY(1024), "mysql", "mariadb")
Moment = DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
BatchId = LargeBinary().with_variant(mysql.BINARY(16), "mysql", "mariadb")


def create_statements(dialect: Dialect) -> list[str]:
    """Return the statements that create all tables on an empty database."""
    tables = build_tables().sorted_tables
    return [str(CreateTable(table).compile(dialect=dialect)).strip() for table in tables]


def build_tables() -> MetaData:
    """Return the tables as a database without a row for the head has them."""
    metadata = MetaData()
    _table(
        metadata,
        "head",
        _key("id", Small),
        _column("compacted", Integer64),
        _column("pruned", Integer64),
        _column("cluster_id", Integer64),
        _column("schema_version", Integer64),
        _column("opened", Integer64),
    )
    _table(
        metadata,
        "commit",
        _key("change", Integer64),
        _column("revision", Integer64),
        _column("batch", BatchId),
        _column("kinds", Small),
        _column("at", Integer64),
    )
    _log(metadata)
    _table(metadata, "lease", _key("id", Integer64), _column("ttl", Integer64))
    _state(metadata)
    return metadata


def build_network_tables(prefix: str, schema: str | None, dialect: str) -> MetaData:
    """Return the tables as a database on the network has them.

    Args:
        prefix: In front of every table's name, so that many clusters share a database.
        schema: PostgreSQL's schema to put them in.
        dialect: SQLAlchemy's name of it; MySQL has a table more.
    """
    metadata = MetaData(schema=schema)
    head = [
        _key("id", Small),
        _column("change", Integer64),
        _column("revision", Integer64),
        _column("compacted", Integer64),
        _column("pruned", Integer64),
        _column("cluster_id", Integer64),
        _column("schema_version", Integer()),
    ]
    # Every append updates the head: versions of it must find room beside it (log.md A11).
    _table(metadata, "head", *head, prefix=prefix, postgresql_with=_HEAD_STORAGE)
    _table(
        metadata,
        "commit",
        _key("change", Integer64),
        _column("revision", Integer64),
        _column("batch", BatchId),
        _column("kinds", Small),
        _at(dialect),
        prefix=prefix,
    )
    _log(metadata, prefix)
    deadline = _column("deadline", Moment)
    lease = _table(
        metadata,
        "lease",
        _key("id", Integer64),
        _column("ttl", Integer64),
        deadline,
        Column("expired", Boolean, nullable=False, server_default=text("false")),
        prefix=prefix,
        postgresql_with={"fillfactor": 50},
    )
    due = Index(f"{prefix}lease_due", deadline, postgresql_where=~lease.c.expired)
    assert due.table is lease
    _state(metadata, prefix)
    _table(
        metadata,
        "member",
        _key("id", Integer64),
        _column("name", Words),
        _column("client_urls", Words),
        _column("horizon", Integer64),
        _column("seen", Moment),
        prefix=prefix,
        postgresql_with={"fillfactor": 50},
    )
    if dialect != "postgresql":
        # One row, written to make durable what others have committed (log.md A7).
        _table(metadata, "sync", _key("id", Small), _column("times", Integer64), prefix=prefix)
    return metadata


def create_network_statements(metadata: MetaData, dialect: Dialect) -> list[str]:
    """Return the statements that create the tables and indexes of `metadata`."""
    statements = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)).strip())
        statements += [str(CreateIndex(i).compile(dialect=dialect)) for i in table.indexes]
    return statements


def _at(dialect: str) -> Column[object]:
    clock = "clock_timestamp()" if dialect == "postgresql" else "(utc_timestamp(6))"
    return Column("at", Moment, nullable=False, server_default=text(clock))


def _log(metadata: MetaData, prefix: str = PREFIX) -> None:
    # Key and value come last: what a metadata scan reads is then in front of overflow pages.
    _table(
        metadata,
        "log",
        _key("id", Integer64),
        _column("create_revision", Integer64),
        _column("version", Integer64),
        _column("lease", Integer64),
        _column("key", Bytes),
        Column("value", Bytes, nullable=True),
        prefix=prefix,
    )


def _state(metadata: MetaData, prefix: str = PREFIX) -> None:
    _table(
        metadata,
        "auth",
        _key("kind", Small),
        _key("name", Name),
        _column("body", Bytes),
        prefix=prefix,
    )
    _table(metadata, "alarm", _key("member", Integer64), _key("kind", Small), prefix=prefix)


def _table(
    metadata: MetaData,
    name: str,
    *columns: Column[object],
    prefix: str = PREFIX,
    **options: Any,
) -> Table[Any]:
    # Ordinary rowid tables: WITHOUT ROWID tripled the file (log.md B1).
    table: Table[Any] = Table(
        prefix + name,
        metadata,
        *columns,
        sqlite_strict=True,
        mysql_engine="InnoDB",
        mysql_row_format="DYNAMIC",
        mysql_charset="binary",
        mariadb_engine="InnoDB",
        mariadb_row_format="DYNAMIC",
        mariadb_charset="binary",
        **options,
    )
    return table


def _key(name: str, kind: object) -> Column[object]:
    return Column(name, kind, primary_key=True, autoincrement=False)  # type: ignore[arg-type]


def _column(name: str, kind: object) -> Column[object]:
    return Column(name, kind, nullable=False)  # type: ignore[arg-type]
