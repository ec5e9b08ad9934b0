"""The user that a process of the datastore runs as, when byre is root."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datastore.errors import UnusablePath, UnusableUser

DEFAULT_USER: Final = "byre-datastore"
KEY: Final = "spec.installConfig.users.kineUser"

_READ: Final = 4
_WRITE: Final = 2
_PASS: Final = 1


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    home: Path


def choose_user(configured: str | None, uid: int | None = None) -> str | None:
    """Return the user's name for the processes, or None for that of byre itself.

    Only root can choose. Without a choice it is `DEFAULT_USER`, on a machine that has one.
    """
    if (os.geteuid() if uid is None else uid) != 0 or configured == "root":
        return None
    if configured is not None:
        return configured
    return DEFAULT_USER if _exists(DEFAULT_USER) else None


def find_account(name: str) -> Account:
    """Return a user of this machine; raises UnusableUser."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise UnusableUser(
            name,
            f"there is no such user; make it with `{creation(name)}`, or name another as {KEY}",
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def creation(name: str) -> str:
    """Return the command that makes a user for a datastore."""
    return f"useradd --system --no-create-home --shell /usr/sbin/nologin {name}"


def give(paths: Iterable[Path], account: Account) -> None:
    """Make the account the owner of those paths that exist; raises UnusablePath."""
    for path in paths:
        try:
            if path.exists():
                os.chown(path, account.uid, account.gid)
        except OSError as error:
            raise UnusablePath(path, (error.strerror or str(error)).lower()) from error


def require_passage(path: Path, account: Account) -> None:
    """Check that the account can pass through every directory above `path`."""
    for parent in path.absolute().parents:
        if parent.exists() and not _may(account, parent, _PASS):
            raise UnusablePath(
                path,
                f"user {account.name} cannot pass through {parent}; allow it with "
                f"`chmod o+x {parent}`, choose another place, or another user as {KEY}",
            )


def require_readable(path: Path, account: Account) -> None:
    """Check that the account can read a file; raises UnusablePath."""
    require_passage(path, account)
    if path.exists() and not _may(account, path, _READ):
        raise UnusablePath(
            path, f"not readable for user {account.name}; `chown {account.name} {path}`"
        )


def require_writable(directory: Path, account: Account) -> None:
    """Check that the account can make files in a directory; raises UnusablePath."""
    require_passage(directory, account)
    if not _may(account, directory, _READ | _WRITE | _PASS):
        raise UnusablePath(
            directory,
            f"not writable for user {account.name}; `chown {account.name} {directory}`, or name "
            f"another user as {KEY}",
        )


def _may(account: Account, path: Path, wanted: int) -> bool:
    found = path.stat()
    if found.st_uid == account.uid:
        mode = found.st_mode >> 6
    elif found.st_gid == account.gid:
        mode = found.st_mode >> 3
    else:
        mode = found.st_mode
    return mode & wanted == wanted or account.uid == 0


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
