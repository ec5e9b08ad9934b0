"""The last commit that a server has served, kept in a file, so that a lost tail is noticed.

A database that a lagging replica replaced, or that was restored, holds another history than the
one that clients were told. A running server notices at its next look at the log; one that starts
compares the log with its file (log.md A2, D2).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Final, NamedTuple

from datastore.shim.backends.api import Backend, Commit, Diverged, Kinds, NotReady
from datastore.shim.replica import Replica

log = logging.getLogger(__name__)

SAVE_SECONDS: Final = 1.0
ACCEPTED_GAP: Final = 10**9
"""By how much an accepted loss raises the revision and compacts: nothing served comes near."""


class Recorded(NamedTuple):
    """What a position file says."""

    cluster_id: int
    commit: Commit

    def encode(self) -> bytes:
        """Return it as the file's content."""
        return json.dumps(
            {
                "cluster_id": f"{self.cluster_id:x}",
                "change": self.commit.change,
                "revision": self.commit.revision,
                "batch": self.commit.batch.hex(),
            }
        ).encode()


class PositionFile:
    """The file of one server."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Recorded | None:
        """Return what is recorded, None where nothing is.

        Raises:
            NotReady: The file cannot be read.
        """
        try:
            told = json.loads(self.path.read_text())
            commit = Commit(
                int(told["change"]),
                int(told["revision"]),
                bytes.fromhex(told["batch"]),
                Kinds.NONE,
            )
            return Recorded(int(told["cluster_id"], 16), commit)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise NotReady(
                f"cannot read {self.path}, which says what this server has served: {error}; "
                "if the datastore is the right one, remove the file"
            ) from error

    def write(self, cluster_id: int, commit: Commit) -> None:
        """Record a commit, in one step. Raises OSError."""
        temporary = self.path.with_name(f".{self.path.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
            file.write(Recorded(cluster_id, commit).encode())
            file.flush()
            os.fsync(descriptor)
        temporary.replace(self.path)

    def check(self, backend: Backend) -> None:
        """Compare an open log with what this server has served.

        Raises:
            NotReady: It is another history, and nobody has accepted that; says what to do.
        """
        recorded = self.read()
        if recorded is None:
            return
        head = backend.head()
        if head.cluster_id != recorded.cluster_id:
            raise NotReady(
                f"the datastore is another cluster ({head.cluster_id:x}) than the one that this "
                f"server has served ({recorded.cluster_id:x}): check spec.storage, or remove "
                f"{self.path} if it is the right one"
            )
        if is_accepted(recorded.commit.revision, head.compacted):
            return
        try:
            backend.tail(recorded.commit, 1)
        except Diverged as error:
            raise NotReady(
                f"the datastore has lost commits that this server has served, up to revision "
                f"{recorded.commit.revision}; it is at {head.revision} now ({error}). A replica "
                "that lagged was promoted, or a backup restored. Bring the lost commits back, or "
                "accept the loss with `byre datastore accept-loss`: then all caches are read anew"
            ) from error


def is_accepted(served: int, compacted: int) -> bool:
    """Return whether a history that is compacted so far was accepted by somebody.

    Only an accepted loss puts so many revisions between what was served and what can be read, and
    then nothing that was served can be read or watched any more: every client reads anew.
    """
    return compacted - served >= ACCEPTED_GAP // 2


class PositionKeeper:
    """Keeps the file of a running server up to date."""

    def __init__(self, replica: Replica, file: PositionFile) -> None:
        self._replica = replica
        self._file = file
        self._saved: Commit | None = None

    async def run(self) -> None:
        """Save the position about once a second, for ever, where it has moved."""
        while True:
            await self.save()
            await asyncio.sleep(SAVE_SECONDS)

    async def save(self) -> None:
        """Save the position now, if it has moved."""
        replica = self._replica
        position = replica.position
        if position == self._saved:
            return
        try:
            await replica.lanes.upkeep(self._file.write, replica.head.cluster_id, position)
        except OSError as error:
            log.warning("what was served cannot be recorded: %s", error)
        else:
            self._saved = position
