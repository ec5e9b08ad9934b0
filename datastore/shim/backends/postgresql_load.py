"""Reading the whole log at the start, in one snapshot, by a cursor of the server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from datastore.shim.backends.api import Commit, Corrupt, Head, Meta
from datastore.shim.backends.postgresql_session import Session
from datastore.shim.backends.sql_reads import Names, Statements, to_commit, to_head

PAGE_ROWS: Final = 2000
LOAD_SECONDS: Final = 300.0
"""How long one page is waited for: the first may be sorted."""

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ WRITE"
_PATIENCE = (
    f"SELECT set_config('statement_timeout', '{LOAD_SECONDS:.0f}s', true), "
    f"set_config('idle_in_transaction_session_timeout', '{LOAD_SECONDS:.0f}s', true)"
)
_METAS = "SELECT id, create_revision, version, lease, key FROM {log} ORDER BY id"


@contextmanager
def load(
    session: Session, names: Names, statements: Statements
) -> Iterator[tuple[Head, Commit, Iterator[Sequence[Meta]]]]:
    """Give the head, its commit and pages of every row's meta; raises psycopg's errors."""
    session.limit = LOAD_SECONDS
    session.execute(_BEGIN)
    session.execute(_PATIENCE)
    head = to_head(session.execute(statements.head, binary=True).fetchall())
    found = session.execute(statements.commit, (head.change,), binary=True).fetchone()
    if found is None:
        raise Corrupt(f"the row of commit {head.change}, the newest, is missing")
    with session.cursor("byre_load", scrollable=False) as cursor:
        cursor.itersize = PAGE_ROWS
        cursor.execute(names.fill(_METAS), binary=True)

        def pages() -> Iterator[Sequence[Meta]]:
            while rows := cursor.fetchmany(PAGE_ROWS):
                yield [Meta._make(row) for row in rows]

        yield head, to_commit(*found), pages()
