"""What long readers of the log still need, so that pruning waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Holds:
    """The compacted revisions as of which the log is being read from end to end.

    While there is one, this server neither prunes nor tidies the index of later compactions, and
    others on the database are told of the oldest.
    """

    def __init__(self) -> None:
        self._held: list[int] = []
        self._free = asyncio.Event()
        self._free.set()

    @property
    def oldest(self) -> int | None:
        """The oldest revision held, None where there is none."""
        return min(self._held, default=None)

    @contextmanager
    def at(self, revision: int) -> Iterator[None]:
        """Keep in the log what a compaction at `revision` has left readable."""
        self._held.append(revision)
        self._free.clear()
        try:
            yield
        finally:
            self._held.remove(revision)
            if not self._held:
                self._free.set()

    async def released(self) -> None:
        """Return at once where nothing is held, else when the last hold has ended."""
        await self._free.wait()
