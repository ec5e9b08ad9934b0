"""Builds etcd's database file of one commit, page by page, beside all other work.

The event loop reads the rows; encoding and writing go to a thread. What is in memory is one page
of rows and a few pages of the database, however large the store is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO, Final

from datastore.shim.backends.api import Row
from datastore.shim.snapshot.cut import Cut
from datastore.shim.snapshot.database import Bucket, Database
from datastore.shim.snapshot.records import (
    Record,
    Standing,
    alarm_records,
    auth_records,
    cluster_records,
    lease_records,
    member_records,
    meta_records,
    role_records,
    row_record,
    user_records,
)

_TURN_ROWS: Final = 64
_REST_SECONDS: Final = 0.0001


async def build(state: Cut, standing: Standing, file: BinaryIO) -> int:
    """Write the state to an empty file and return the file's size.

    Raises:
        Overtaken: begin again with another cut and another file.
        CorruptStore, NoLeader: the rows cannot be read.
        OSError: the file cannot be written.
    """
    run = state.replica.lanes.chores
    database = Database(file)
    keys = database.bucket(b"key")
    async for rows in state.read(state.revision):
        await run(_put_rows, keys, rows)
    await run(keys.finish)
    return await run(_finish, database, _small_buckets(state, standing))


def _put_rows(bucket: Bucket, rows: Sequence[Row]) -> None:
    for start in range(0, len(rows), _TURN_ROWS):
        for row in rows[start : start + _TURN_ROWS]:
            bucket.put(*row_record(row))
        time.sleep(_REST_SECONDS)  # the interpreter would let the event loop wait for 5 ms


def _finish(database: Database, buckets: Mapping[bytes, Iterable[Record]]) -> int:
    for name, records in buckets.items():
        bucket = database.bucket(name)
        for key, value in records:
            bucket.put(key, value)
        bucket.finish()
    database.finish()
    return database.size


def _small_buckets(state: Cut, standing: Standing) -> Mapping[bytes, Iterable[Record]]:
    return {
        b"lease": lease_records(state.leases),
        b"alarm": alarm_records(state.alarms),
        b"auth": auth_records(state.auth),
        b"authUsers": user_records(state.auth),
        b"authRoles": role_records(state.auth),
        b"meta": meta_records(standing),
        b"cluster": cluster_records(standing),
        b"members": member_records(standing),
        b"members_removed": (),
    }
