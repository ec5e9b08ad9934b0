"""What every kind of token can do; the kinds are etcd's (``--auth-token``)."""

from __future__ import annotations

from typing import Protocol

from datastore.shim.errors import AuthFailed
from datastore.shim.mvcc.auth import Auth, Identity


class Tokens(Protocol):
    """Issues and recognises tokens of one kind."""

    def issue(self, auth: Auth, name: str, position: int) -> str:
        """Return a token for a user of `auth`, whose password is proved.

        Args:
            auth: The state that the password was checked against.
            name: The user.
            position: Number of the last commit of that state.

        Raises:
            ShimError: This kind cannot, here.
        """

    def position(self, token: str) -> int:
        """Return how far a server must have come to judge the token, if that can be told."""

    def find(self, auth: Auth, token: str) -> Identity | None:
        """Return whom the token stands for; None: forged, revoked or expired."""


class NoTokens:
    """``--auth-token=``: nobody gets a token; certificates may still say who calls."""

    def issue(self, auth: Auth, name: str, position: int) -> str:
        """Refuse, as etcd does."""
        raise AuthFailed

    def position(self, token: str) -> int:
        """Wait for nothing."""
        return 0

    def find(self, auth: Auth, token: str) -> Identity | None:
        """Know nobody."""
        return None
