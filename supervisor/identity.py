"""Remembers which datastore a data directory belongs to, and refuses another one.

A configuration that lost its `spec.storage` section, or a database that was emptied, would
otherwise come up as a new, empty cluster, and everything that runs would be forgotten.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from datastore.pki import write_private
from datastore.probe import Identity
from supervisor.errors import ForeignStore

FILE = "identity.json"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of the datastore; a cluster id of zero means that it does not tell."""

    kind: str
    where: str
    cluster_id: str
    revision: int


class IdentityGuard:
    """The memory of one data directory."""

    def __init__(self, data_dir: Path, kind: str, where: str) -> None:
        self._path = data_dir / FILE
        self._kind = kind
        self._where = where

    def recall(self) -> Remembered | None:
        """Return what is remembered, or None for a data directory without a past.

        Raises ForeignStore for a memory that cannot be read: guessing would defeat its purpose.
        """
        try:
            return Remembered(**json.loads(self._path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ForeignStore(
                f"cannot read {self._path}, which says to which datastore this data directory "
                f"belongs: {error}; if the datastore is the right one, run once with "
                "--adopt-datastore"
            ) from error

    def remember(self, identity: Identity) -> None:
        """Write down the datastore and the last revision seen."""
        memory = Remembered(self._kind, self._where, f"{identity.cluster_id:x}", identity.revision)
        write_private(self._path, (json.dumps(asdict(memory), indent=2) + "\n").encode())

    def check(self, identity: Identity) -> None:
        """Compare the datastore with the memory; raises ForeignStore."""
        known = self.recall()
        if known is None:
            return
        found = f"{identity.cluster_id:x}"
        if found != known.cluster_id:
            raise ForeignStore(
                f"this data directory belongs to another datastore: remembered is cluster "
                f"{known.cluster_id} ({known.kind}, {known.where}), found was cluster {found} "
                f"({self._kind}, {self._where}); {_ADVICE}"
            )
        if identity.revision < known.revision:
            raise ForeignStore(
                f"the datastore has lost data: revision {known.revision} has been seen, now it is "
                f"at {identity.revision} ({self._kind}, {self._where}); {_ADVICE}"
            )


_ADVICE = (
    "check spec.storage in the configuration, use another --data-dir, or, if this datastore is "
    "the one to use from now on, run once with --adopt-datastore"
)
