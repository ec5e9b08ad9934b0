"""Who calls, and whether that is somebody at all or root: what every service asks (contract 2.10).

Whether a caller may touch a key is not asked here but where the request is evaluated, so that the
answer belongs to the state that it is evaluated on: mvcc/permits.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from datastore.shim.auth.tokens import Tokens
from datastore.shim.errors import AuthOldRevision, InvalidAuthToken, UserEmpty
from datastore.shim.mvcc.auth import ANONYMOUS, Auth, Identity
from datastore.shim.replica import Replica
from datastore.shim.transport.api import Call

T = TypeVar("T")
_KEYS = ("token", "authorization")
"""Metadata that a token comes in: of gRPC clients, and of HTTP clients (etcd: rpctypes)."""
_GATEWAY = "grpcgateway-accept"
"""Metadata of every call that the JSON gateway makes (grpc-gateway)."""


class Guard:
    """Finds out who calls.

    Args:
        replica: Has the users and roles.
        tokens: Knows the tokens.
        trust_certificates: Whether the common name of a client's certificate says who calls where
            no token does (--client-cert-auth).

    Attributes:
        trust_certificates: As above.
    """

    def __init__(self, replica: Replica, tokens: Tokens, *, trust_certificates: bool) -> None:
        self._replica = replica
        self._tokens = tokens
        self.trust_certificates = trust_certificates

    @property
    def enabled(self) -> bool:
        """Whether anybody is asked at all. Hot: all that a request pays while auth is off."""
        return self._replica.store.auth.enabled

    @property
    def _auth(self) -> Auth:
        return self._replica.store.auth

    async def identify(self, call: Call) -> Identity:
        """Return who calls: ANONYMOUS while auth is off, and where nothing tells.

        Raises:
            InvalidAuthToken: The token is forged, revoked or has expired.
            NoLeader: A token of another server is ahead of this one, and the database is away.
        """
        if not self.enabled:
            return ANONYMOUS
        token = _find_token(call)
        if token is None:
            return await self._read_certificate(call)
        if self._tokens.position(token) <= self._replica.position.change and (
            found := self._tokens.find(self._auth, token)
        ):
            return found
        # Another server issued it, or has switched auth off, and this one has still to hear of
        # that. etcd waits for the index in the token, too.
        await self._replica.read_index()
        if not self.enabled:
            return ANONYMOUS
        found = self._tokens.find(self._auth, token)
        if found is None:
            raise InvalidAuthToken
        return found

    async def act(self, call: Call, write: Callable[[Identity], Awaitable[T]]) -> T:
        """Let `write` be done on behalf of whoever calls, and return what it returns.

        What another server has changed since this one looked, auth having been off included, is no
        reason to send the client away: such a write has changed nothing, and is tried once more
        by who calls now.
        """
        who = await self.identify(call)
        try:
            return await write(who)
        except (AuthOldRevision, UserEmpty):
            now = await self.identify(call)
            if now == who:
                raise
            return await write(now)

    async def require_user(self, call: Call) -> None:
        """Refuse a call of nobody in particular. At once while auth is off.

        Raises:
            UserEmpty, InvalidAuthToken: As etcd's requireAuthInfo.
        """
        if self.enabled:
            who = await self.identify(call)
            self._auth.check_user(who)

    async def require_admin(self, call: Call) -> None:
        """Refuse a call of anybody who has not the role root. At once while auth is off.

        Raises:
            UserEmpty, UserNotFound, PermissionDenied, InvalidAuthToken: As etcd's isPermitted.
        """
        if self.enabled:
            who = await self.identify(call)
            self._auth.check_admin(who)

    async def _read_certificate(self, call: Call) -> Identity:
        name = call.peer.common_name if self.trust_certificates else None
        # What calls through the gateway has the gateway's connection.
        if name is None or _GATEWAY in call.metadata:
            # Nobody is refused, unless another server has switched auth off.
            await self._replica.read_index()
            return ANONYMOUS
        return Identity(name, self._auth.revision)


def _find_token(call: Call) -> str | None:
    for key in _KEYS:
        if values := call.metadata.get(key):
            token = values[0]
            text = token if isinstance(token, str) else token.decode(errors="replace")
            return text.removeprefix("Bearer ")
    return None
