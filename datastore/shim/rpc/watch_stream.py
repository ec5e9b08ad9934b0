"""The sending half of a watch stream: responses as bytes, and its watchers by id."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from datastore.shim.errors import ShimError, StoreError
from datastore.shim.mvcc.wire import frame, varint
from datastore.shim.rpc.header import Headers
from datastore.shim.transport.api import Call
from datastore.shim.watch.hub import Hub
from datastore.shim.watch.watcher import Watcher

NO_WATCH: Final = -1
"""The watch id of a response that belongs to no watcher."""

_CREATED: Final = b"\x18\x01"
_CANCELED: Final = b"\x20\x01"
_COMPACT_REVISION: Final = b"\x28"
_CANCEL_REASON: Final = b"\x32"
_FRAGMENT: Final = b"\x38\x01"


class DuplicateWatchId(ShimError):
    """The id that the client chose belongs to another watcher of the stream."""

    text = "mvcc: duplicate watch ID provided on the WatchStream"


class EmptyWatchRange(ShimError):
    """No key can be in the range that is to be watched."""

    text = "mvcc: watcher range is empty"


class ResponseStream:
    """Where the responses of one stream go (watch.watcher.WatchStream). Methods only queue."""

    def __init__(self, call: Call, headers: Headers, hub: Hub) -> None:
        self.watchers: dict[int, Watcher] = {}
        self.pending = 0
        """Bytes that waited when something was last queued."""
        self._call = call
        self._headers = headers
        self._hub = hub
        self._next_id = 0
        self._draining: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._ask_again = False

    def take_id(self, wanted: int) -> int:
        """Return `wanted`, or for 0 the next free id: the first one is 0.

        Raises:
            DuplicateWatchId: `wanted` is in use.
        """
        if wanted:
            if wanted in self.watchers:
                raise DuplicateWatchId
            return wanted
        while self._next_id in self.watchers:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def events(self, watcher: Watcher, revision: int, body: bytes, last_part: bool) -> int:
        """Queue events that are encoded already; return the bytes that wait. Hot."""
        fragment = b"" if last_part else _FRAGMENT
        return self._send(
            b"".join((self._headers.at(revision), _watch_id(watcher.id), fragment, body))
        )

    def progress(self, watcher: Watcher | None, revision: int) -> None:
        watch_id = NO_WATCH if watcher is None else watcher.id
        self._send(self._headers.at(revision) + _watch_id(watch_id))

    def canceled(self, watcher: Watcher, compact_revision: int) -> None:
        self.watchers.pop(watcher.id, None)
        self._send(
            self._headers.without_revision
            + _watch_id(watcher.id)
            + _CANCELED
            + _COMPACT_REVISION
            + varint(compact_revision)
        )

    def created(self, watcher: Watcher) -> None:
        """Queue the answer to a create request."""
        header = self._headers.at(watcher.created_revision)
        self._send(header + _watch_id(watcher.id) + _CREATED)

    def refused(self, reason: str) -> None:
        """Queue the answer to a create request that failed: a response, not a stream error."""
        self._send(
            self._headers.at(self._hub.revision)
            + _watch_id(NO_WATCH)
            + _CREATED
            + _CANCELED
            + frame(_CANCEL_REASON, reason.encode())
        )

    def canceled_by_client(self, watch_id: int) -> None:
        """Queue the answer to a cancel request."""
        self._send(self._headers.at(self._hub.revision) + _watch_id(watch_id) + _CANCELED)

    def ask_when(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Ask the hub for progress once `ready` returned; requests meanwhile join the next one.

        Where it cannot be ready now the request is dropped, as in etcd: clients ask again.
        """
        self._ask_again = True
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(ready))

    async def _ask(self, ready: Callable[[], Awaitable[None]]) -> None:
        try:
            while self._ask_again:
                self._ask_again = False
                await ready()
                self._hub.request_progress(self)
        except StoreError:
            pass
        finally:
            self._asking = None

    def close(self) -> None:
        """Forget the watchers; nothing is sent any more."""
        self._hub.close(self)
        self.watchers.clear()
        if self._asking is not None:
            self._asking.cancel()
        if self._draining is not None:
            self._draining.cancel()

    def _send(self, message: bytes) -> int:
        self.pending = pending = self._call.send_nowait(message)
        if pending > self._hub.stream_bytes and self._draining is None:
            self._draining = asyncio.create_task(self._tell_when_drained())
        return pending

    async def _tell_when_drained(self) -> None:
        await self._call.drained()
        self._draining = None
        self._hub.drained(self)


def _watch_id(watch_id: int) -> bytes:
    return b"\x10" + varint(watch_id) if watch_id else b""
