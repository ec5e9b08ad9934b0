"""The tables, for every database, as SQLAlchemy describes them (log.md H).

Numbers are 64 bits everywhere; keys and values are bytes, compared byte by byte. Unsigned 64-bit
identities (cluster, member) are stored as the signed number with the same bits.

SQLite has no `member` table, no deadlines and no moving head: the last commit row says where the
log stands, which saves a page per commit (write-path.md 5.4).
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, SmallInteger, Table
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateTable

PREFIX = "byre_"

Integer64 = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
Small = SmallInteger().with_variant(sqlite.INTEGER(), "sqlite")
Bytes = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
Name = LargeBinary().with_variant(mysql.VARBINARY(760), "mysql", "mariadb")
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
    )
    _table(metadata, "lease", _key("id", Integer64), _column("ttl", Integer64))
    _table(metadata, "auth", _key("kind", Small), _key("name", Name), _column("body", Bytes))
    _table(metadata, "alarm", _key("member", Integer64), _key("kind", Small))
    return metadata


def _table(metadata: MetaData, name: str, *columns: Column[object]) -> None:
    # Ordinary rowid tables: WITHOUT ROWID tripled the file (log.md B1).
    Table(
        PREFIX + name,
        metadata,
        *columns,
        sqlite_strict=True,
        mysql_engine="InnoDB",
        mysql_row_format="DYNAMIC",
        mysql_charset="binary",
        mariadb_engine="InnoDB",
        mariadb_row_format="DYNAMIC",
        mariadb_charset="binary",
    )


def _key(name: str, kind: object) -> Column[object]:
    return Column(name, kind, primary_key=True, autoincrement=False)  # type: ignore[arg-type]


def _column(name: str, kind: object) -> Column[object]:
    return Column(name, kind, nullable=False)  # type: ignore[arg-type]
