"""Maintenance/Snapshot: the whole store as the database file that etcd would send.

The file is built first, in a temporary file that has no name, and then sent: pruning waits for
the building only, not for a slow client, and the first message can tell how much will come.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO, Final

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.members import Members
from datastore.shim.replica import Replica
from datastore.shim.rpc.header import RAFT_TERM
from datastore.shim.rpc.service import Desk
from datastore.shim.snapshot.build import build
from datastore.shim.snapshot.cut import Overtaken, cut
from datastore.shim.snapshot.records import Standing
from datastore.shim.transport.api import Call, Code, RpcError

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 32 << 10
"""As etcd sends it (v3rpc: snapshotSendBufferSize)."""
_READ_BYTES: Final = 32 * CHUNK_BYTES
_LARGE_FILES: Final = "/var/tmp"  # noqa: S108 - nobody else can name what is made there
"""Where there may be more room than in memory, unlike in the usual place (file-hierarchy(7))."""


class SnapshotService:
    """Builds one snapshot at a time; any number may be on their way."""

    def __init__(
        self, desk: Desk, replica: Replica, members: Members, storage_version: str
    ) -> None:
        self._guard = desk.guard
        self._replica = replica
        self._members = members
        self._storage_version = storage_version
        self._building = asyncio.Lock()
        self._run = replica.lanes.chores
        desk.stream("/etcdserverpb.Maintenance/Snapshot", self.snapshot, "server_stream")

    async def snapshot(self, call: Call) -> None:
        """Send the file in chunks, then its SHA-256 as the last."""
        await call.recv()
        await self._guard.require_admin(call)
        while True:
            async with self._spool() as file:
                try:
                    size = await self._build(file)
                except Overtaken:
                    continue
                await self._send(call, file, size)
                log.info("sent a snapshot", extra={"bytes": size, "to": call.peer.address})
                return

    async def _build(self, file: BinaryIO) -> int:
        async with self._building, cut(self._replica) as state:
            standing = Standing(
                change=state.change + 1,  # as in Status
                term=RAFT_TERM,
                compacted=state.compacted,
                storage_version=self._storage_version,
                members=tuple(self._members.live),
            )
            return await build(state, standing, file)

    async def _send(self, call: Call, file: BinaryIO, size: int) -> None:
        digest = hashlib.sha256()
        left = size
        await self._run(file.seek, 0)
        while left:
            block = await self._run(_read, file, digest)
            for start in range(0, len(block), CHUNK_BYTES):
                chunk = block[start : start + CHUNK_BYTES]
                left -= len(chunk)
                await call.send(self._message(chunk, left))
        await call.send(self._message(digest.digest(), 0))

    def _message(self, blob: bytes, left: int) -> bytes:
        message = pb.SnapshotResponse(
            remaining_bytes=left, blob=blob, version=self._storage_version
        )
        return message.SerializeToString()

    @asynccontextmanager
    async def _spool(self) -> AsyncIterator[BinaryIO]:
        """Give an empty file that ends with the call."""
        directory = _directory()
        try:
            file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - closed by a thread
            try:
                yield file
            finally:
                # Behind whatever a thread still does with it, even if the call is cancelled now.
                await asyncio.shield(self._run(file.close))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            text = f"the snapshot cannot be written to {directory}: {reason}"
            log.warning("%s", text, extra={"advice": "TMPDIR names another directory"})
            raise RpcError(Code.RESOURCE_EXHAUSTED, f"etcdserver: {text}") from error


def _directory() -> str:
    if os.environ.get("TMPDIR") or not os.access(_LARGE_FILES, os.W_OK):
        return tempfile.gettempdir()
    return _LARGE_FILES


def _read(file: BinaryIO, digest: hashlib._Hash) -> bytes:
    block = file.read(_READ_BYTES)
    digest.update(block)
    return block
