"""Passwords, hashed and compared off the event loop: bcrypt is slow on purpose."""

from __future__ import annotations

from typing import Final

import bcrypt

from datastore.shim.errors import ShimError, TooManyRequests
from datastore.shim.lanes import Lane

DEFAULT_COST: Final = 10
LOWEST_COST: Final = 4
HIGHEST_COST: Final = 31

MOST_WAITING: Final = 100
"""Passwords that wait for their turn; further ones are refused at once."""
_BYTES: Final = 72
"""What bcrypt looks at."""


class PasswordTooLong(ShimError):
    """A new password above 72 bytes. The words are those of Go's bcrypt, which etcd passes on."""

    text = "bcrypt: password length exceeds 72 bytes"


class Passwords:
    """Hashes and compares, a few at a time.

    Args:
        lane: Where that is done; nothing else waits behind it.
        cost: Logarithm of the rounds of a new hash.
    """

    def __init__(self, lane: Lane, cost: int = DEFAULT_COST) -> None:
        self._lane = lane
        self._cost = cost
        self._waiting = 0

    async def hash(self, password: str) -> bytes:
        """Return a new hash.

        Raises:
            PasswordTooLong: bcrypt would take a part of it for the whole.
            TooManyRequests: Too many passwords wait.
        """
        secret = password.encode()
        if len(secret) > _BYTES:
            raise PasswordTooLong
        self._enter()
        try:
            return await self._lane(_hash, secret, self._cost)
        finally:
            self._waiting -= 1

    async def matches(self, password: str, hashed: bytes) -> bool:
        """Whether a password is that of a hash; none is that of what is no hash.

        Raises:
            TooManyRequests: Too many passwords wait.
        """
        self._enter()
        try:
            return await self._lane(_matches, password.encode()[:_BYTES], hashed)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stop, once the password under way is done with."""
        self._lane.close()

    def _enter(self) -> None:
        if self._waiting >= MOST_WAITING:
            raise TooManyRequests
        self._waiting += 1


def _hash(secret: bytes, cost: int) -> bytes:
    return bcrypt.hashpw(secret, bcrypt.gensalt(cost, prefix=b"2a"))  # the prefix that Go writes


def _matches(secret: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(secret, hashed)
    except ValueError:
        return False
