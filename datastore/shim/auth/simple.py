"""Simple tokens: good for some minutes after their last use, on every server of a database.

In etcd a simple token is random, and all members learn of it from the log: a commit each time that
somebody authenticates. Here it is signed instead, with a secret that is part of the auth state, so
that nothing has to be written and every server knows a token that it has never seen:

    payload . position        payload: base64 of issued | nonce | user | signature

- The signature covers the user's password hash too: a token ends with the password, and with the
  user, on all servers, as etcd's do. A new secret comes with each AuthEnable: they end with that.
- `position` is the commit that the issuer had reached. A server that is behind looks at the log
  first, as etcd waits for the index in its tokens; afterwards it knows the secret and the user.
- Each server renews a token when it is used there, as each member of an etcd does. One that has
  not seen a token takes it as long as it is not older than the TTL, by the clocks of both: a
  restart forgets the uses, not the tokens, and clients ask for new ones by themselves.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from datastore.shim.errors import AuthFailed
from datastore.shim.mvcc.auth import Auth, Identity

DEFAULT_TTL_SECONDS: Final = 300.0

_TIME_BYTES: Final = 8
_NONCE_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 32
_LONGEST: Final = 4096
"""Characters of a token that is looked at."""


class _Claims(NamedTuple):
    name: str
    issued: float
    position: int
    signed: bytes
    signature: bytes


class SimpleTokens:
    """Signs tokens, and remembers when those that it has seen were last used.

    Args:
        ttl: Seconds that a token lives after its last use.
        now: Wall clock: what servers compare.
        elapsed: A clock that is never set, for what is measured here alone.
    """

    def __init__(
        self,
        ttl: float = DEFAULT_TTL_SECONDS,
        now: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl = ttl
        self._now = now
        self._elapsed = elapsed
        self._used: OrderedDict[str, float] = OrderedDict()
        """When each token was used, the one that waits longest in front."""

    def issue(self, auth: Auth, name: str, position: int) -> str:
        """Return a new token. Raises AuthFailed for a user who is no more."""
        user = auth.users.get(name)
        if user is None:
            raise AuthFailed
        issued = int(self._now() * 1000).to_bytes(_TIME_BYTES)
        signed = issued + secrets.token_bytes(_NONCE_BYTES) + name.encode()
        signature = _sign(auth.secret, signed, position, user.password)
        payload = base64.urlsafe_b64encode(signed + signature).decode()
        return f"{payload}.{position}"

    def position(self, token: str) -> int:
        """Return the commit that its issuer had reached."""
        claims = _read(token)
        return 0 if claims is None else claims.position

    def find(self, auth: Auth, token: str) -> Identity | None:
        """Return whom a token stands for, and renew it."""
        claims = _read(token)
        if claims is None:
            return None
        user = auth.users.get(claims.name)
        if user is None or not auth.secret:
            return None
        wanted = _sign(auth.secret, claims.signed, claims.position, user.password)
        if not hmac.compare_digest(wanted, claims.signature) or not self._is_alive(token, claims):
            return None
        return Identity(claims.name, auth.revision)

    def _is_alive(self, token: str, claims: _Claims) -> bool:
        now = self._elapsed()
        self._forget(now - self._ttl)
        if token not in self._used and abs(self._now() - claims.issued) >= self._ttl:
            return False
        self._used[token] = now
        self._used.move_to_end(token)
        return True

    def _forget(self, before: float) -> None:
        """Drop what was last used too long ago: such a token is older than its TTL, too."""
        while self._used and next(iter(self._used.values())) <= before:
            self._used.popitem(last=False)


def _sign(secret: bytes, signed: bytes, position: int, password: bytes) -> bytes:
    covered = signed + position.to_bytes(_TIME_BYTES) + hashlib.sha256(password).digest()
    return hmac.digest(secret, covered, "sha256")


def _read(token: str) -> _Claims | None:
    """Take a token apart; None: it is none."""
    payload, _, position = token.partition(".")
    if len(token) > _LONGEST or not (position.isascii() and position.isdigit()):
        return None
    number = int(position)
    try:
        raw = base64.b64decode(payload, altchars=b"-_", validate=True)
        name = raw[_TIME_BYTES + _NONCE_BYTES : -_SIGNATURE_BYTES].decode()
    except (binascii.Error, ValueError):
        return None
    if len(raw) <= _TIME_BYTES + _NONCE_BYTES + _SIGNATURE_BYTES or number >> 63:
        return None
    issued = int.from_bytes(raw[:_TIME_BYTES]) / 1000
    return _Claims(name, issued, number, raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:])
