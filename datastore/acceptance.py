"""Show what a database has lost, ask, and accept it: ``accept-loss`` of both command lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from datastore.dsn import Access, Dsn
from datastore.errors import NotReady


def accept(
    url: str,
    access: Access,
    position_file: Path | None,
    *,
    tell: Callable[[str], None],
    confirm: Callable[[str], bool],
) -> bool:
    """Accept the history that a database has now; return whether the user confirmed.

    Args:
        url: The data source.
        access: How the database is reached.
        position_file: What this server has served, where it records that.
        tell: Told what is known and what was done, a line at a time.
        confirm: Asked before anything is changed.

    Raises:
        NotReady: The database cannot be opened or written; says what to do.
    """
    # Only this command needs drivers in the process of byre itself.
    from datastore.shim.acceptance import accept_loss
    from datastore.shim.backends.api import BackendError
    from datastore.shim.backends.registry import connect
    from datastore.shim.position import PositionFile

    try:
        recorded = PositionFile(position_file).read() if position_file else None
        backend = connect(url, access)
        try:
            head = backend.open()
        finally:
            backend.close()
        tell(f"{Dsn(url)}")
        if recorded is None:
            tell("  served:   nothing is recorded here")
        else:
            commit = recorded.commit
            tell(f"  served:   {_position(recorded.cluster_id, commit.revision, commit.change)}")
        tell(f"  database: {_position(head.cluster_id, head.revision, head.change)}")
        if not confirm("serve what the database has from now on, and give up what it has lost?"):
            return False
        done = accept_loss(connect(url, access), position_file)
    except BackendError as error:
        raise NotReady(str(error)) from error
    if not done.lost:
        tell("nothing that is recorded here was missing")
    tell(
        f"accepted: the revision went from {done.before} to {done.after}, and everything before "
        "is compacted; servers start again by themselves, and every cache is read anew"
    )
    return True


def _position(cluster_id: int, revision: int, change: int) -> str:
    return f"cluster {cluster_id:x}, revision {revision}, commit {change}"
