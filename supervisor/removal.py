"""Removes what byre keeps in its data and run directories, and nothing else."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from datastore.paths import Paths
from supervisor.controller import clean_up
from supervisor.errors import PreflightFailed
from supervisor.identity import FILE
from supervisor.place import log_dir
from supervisor.preflight import LOCK, DataDirLock


def remove(paths: Paths) -> Sequence[Path]:
    """End orphans and remove the cluster; return what was removed.

    Raises PreflightFailed while a byre runs there.
    """
    if not paths.data_dir.is_dir():
        return [directory for directory in (paths.run_dir,) if _remove_empty(directory)]
    with DataDirLock(paths.data_dir) as lock:
        if holder := lock.take():
            raise PreflightFailed(
                [f"byre runs on {paths.data_dir} ({holder}); stop it before"], "reset"
            )
        asyncio.run(clean_up(paths, []))
        removed = [path for path in _own(paths) if _remove(path)]
        directories = (paths.run_dir, paths.data_dir)
        return [*removed, *(path for path in directories if _remove_empty(path))]


def _own(paths: Paths) -> Sequence[Path]:
    data = paths.data_dir
    return (
        paths.etcd_dir,
        paths.database_dir,
        paths.pki_dir,
        log_dir(paths),
        data / FILE,
        paths.datastore_run_dir,
        *sorted(paths.run_dir.glob("*.pid")),
        *sorted(paths.run_dir.glob("*.sock")),
        data / LOCK,
    )


def _remove(path: Path) -> bool:
    if path.is_dir():
        shutil.rmtree(path)
        return True
    if path.exists():
        path.unlink()
        return True
    return False


def _remove_empty(directory: Path) -> bool:
    # What byre did not make is not byre's to remove.
    try:
        directory.rmdir()
    except OSError:
        return False
    return True
