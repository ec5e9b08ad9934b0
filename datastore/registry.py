"""What a datastore is, and which one a URL scheme stands for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name
from typing import Final, Protocol

from datastore.dsn import Access, Dsn
from datastore.dsn.parse import SERVER_SCHEMES
from datastore.endpoint import Endpoint
from datastore.errors import Problem, UnknownKind
from datastore.launch import ProcessSpec
from datastore.paths import Paths

ENTRY_POINTS: Final = "byre.datastores"
"""Group of entry points: the name is the URL scheme, the object is a Factory."""

_BUILT_IN: Final[Mapping[str, str]] = {
    "sqlite": "datastore.sql:from_file",
    **dict.fromkeys(SERVER_SCHEMES, "datastore.sql:from_server"),
}


class Datastore(Protocol):
    """Something that kube-apiserver can use as etcd."""

    @property
    def kind(self) -> str:
        """What people call it: ``sqlite``, ``managed etcd``, …."""
        ...

    @property
    def place(self) -> str:
        """Where its data is, for messages; no secret."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other controllers may use the same store: then leaders are elected."""
        ...

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers; the repr shows no credentials."""
        ...

    @property
    def binaries(self) -> Sequence[str]:
        """Names of the programs that its processes need."""
        ...

    def processes(self) -> Sequence[ProcessSpec]:
        """Return what must run for it, in the order of starting; empty when others run it."""
        ...

    def prepare(self) -> None:
        """Make directories and certificates; may be called again. Raises DatastoreError."""
        ...

    async def check(self) -> None:
        """Return when the store answers; raises NotReady with the reason and what to do."""
        ...


Binary = Callable[[str], Path]
"""Finds the program of a name; asked only when processes() is."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a factory makes a datastore from."""

    dsn: Dsn
    paths: Paths
    binary: Binary = Path
    extra_args: Mapping[str, str] = field(default_factory=dict)
    access: Access = field(default_factory=Access)
    server_keys: Sequence[str] = ()
    """Keys of spec.storage.kine that are given and mean something for database servers only."""
    user: str | None = None
    """Whom its processes are to run as; None for byre's own user."""


Factory = Callable[[Request], Datastore]


def taken_flags(
    extra_args: Mapping[str, str], taken: Collection[str], path: str
) -> Iterator[Problem]:
    """Yield a problem for each extra argument that the datastore has to decide itself."""
    for name in extra_args:
        if name in taken:
            yield Problem(f"{path}.extraArgs.{name}", "", "is decided by byre; leave it out")


def schemes() -> Sequence[str]:
    """Return every URL scheme that has a datastore."""
    return sorted({*_BUILT_IN, *metadata.entry_points(group=ENTRY_POINTS).names})


def factory(scheme: str) -> Factory:
    """Return the factory of a scheme; it is imported now, not earlier. Raises UnknownKind."""
    if scheme in _BUILT_IN:
        found: Factory = resolve_name(_BUILT_IN[scheme])
        return found
    for entry in metadata.entry_points(group=ENTRY_POINTS, name=scheme):
        loaded: Factory = entry.load()
        return loaded
    raise UnknownKind(scheme, schemes())
