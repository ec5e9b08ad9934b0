"""JSON Web Tokens, as etcd signs and reads them (server/auth/jwt.go).

A token says who it is for and at which auth revision it was issued: it ends with the next change
of users or roles, or at its time, and nobody has to remember it. Servers of one database have to
be given keys that fit together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey as EcPrivate
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey as EcPublic
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey as EdPrivate
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as EdPublic
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey as RsaPrivate
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey as RsaPublic
from cryptography.x509 import load_pem_x509_certificate
from jwt.types import Options

from datastore.shim.errors import ShimError
from datastore.shim.mvcc.auth import Auth, Identity

SIGN_METHODS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "HS256", "HS384", "HS512",
)  # fmt: skip
DEFAULT_TTL_SECONDS: Final = 300.0

_PrivateKey = RsaPrivate | EcPrivate | EdPrivate
_PublicKey = RsaPublic | EcPublic | EdPublic
_KINDS: Final[dict[str, tuple[type, type, str]]] = {
    "RS": (RsaPrivate, RsaPublic, "an RSA key"),
    "PS": (RsaPrivate, RsaPublic, "an RSA key"),
    "ES": (EcPrivate, EcPublic, "a key of an elliptic curve"),
    "Ed": (EdPrivate, EdPublic, "an Ed25519 key"),
}
_UINT64_STOP: Final = 1 << 64
_CURVE_BITS: Final = {"ES256": 256, "ES384": 384, "ES512": 521}
# Go's library looks at the times alone, and "iat" is not one that it refuses for.
_CHECKS: Final[Options] = {
    "verify_aud": False,
    "verify_iat": False,
    "verify_iss": False,
    "verify_jti": False,
    "verify_sub": False,
}


class BadKey(Exception):
    """Keys that cannot sign or verify; the message is for people and shows no key."""


class VerifyOnly(ShimError):
    """Only a public key was given: tokens come from elsewhere. etcd has no gRPC error for it."""

    text = "auth: token signing attempted with verify-only key"


@dataclass(frozen=True, slots=True)
class Keys:
    """What signs, which may be missing, and what verifies."""

    sign: _PrivateKey | bytes | None = field(repr=False)
    verify: _PublicKey | bytes = field(repr=False)


class JwtTokens:
    """Signs and verifies tokens.

    Args:
        method: One of SIGN_METHODS; a token that is signed otherwise is refused.
        keys: What fits the method.
        ttl: Seconds from issue to expiry.
        now: Wall clock.
    """

    def __init__(
        self,
        method: str,
        keys: Keys,
        ttl: float = DEFAULT_TTL_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._method = method
        self._keys = keys
        self._ttl = ttl
        self._now = now
        # Keys are the administrator's choice: a short one is warned of once, not a call.
        self._jwt = jwt.PyJWT()

    def issue(self, auth: Auth, name: str, position: int) -> str:
        """Return a new token. Raises VerifyOnly where there is no private key."""
        if self._keys.sign is None:
            raise VerifyOnly
        claims = {
            "username": name,
            "revision": auth.revision,
            "exp": int(self._now() + self._ttl),
        }
        return self._jwt.encode(claims, self._keys.sign, self._method)

    def position(self, token: str) -> int:
        """Wait for nothing: a token of a later revision passes for the present one."""
        return 0

    def find(self, auth: Auth, token: str) -> Identity | None:
        """Return whom a token stands for, as of the revision that it was issued at."""
        try:
            claims = self._jwt.decode(
                token, self._keys.verify, algorithms=[self._method], options=_CHECKS
            )
        except jwt.PyJWTError:
            return None
        name, revision = claims.get("username"), claims.get("revision")
        if not isinstance(name, str) or isinstance(revision, bool):
            return None
        # A number of JSON may be anything, no number included.
        if not isinstance(revision, int | float) or not 0 <= revision < _UINT64_STOP:
            return None
        return Identity(name, int(revision))


def load_keys(method: str, private: bytes, public: bytes) -> Keys:
    """Return the keys that PEM texts, or for HS the private one as it is, hold.

    Raises:
        BadKey: nothing was given, or what was given does not fit.
    """
    if method.startswith("HS"):
        if not private:
            raise BadKey("needs priv-key, a file with the secret")
        return Keys(private, private)
    private_kind, public_kind, wanted = _KINDS[method[:2]]
    sign = _load_private(private) if private else None
    verify = _load_public(public) if public else sign.public_key() if sign else None
    if verify is None:
        raise BadKey("needs priv-key, or pub-key to verify tokens only")
    if not isinstance(verify, public_kind) or not isinstance(sign, private_kind | None):
        raise BadKey(f"sign-method {method} needs {wanted}")
    if isinstance(verify, EcPublic) and verify.key_size != _CURVE_BITS[method]:
        raise BadKey(f"sign-method {method} needs a key on another curve")
    if sign is not None and _to_der(sign.public_key()) != _to_der(verify):
        raise BadKey("pub-key is not the public key of priv-key")
    return Keys(sign, verify)


def _load_private(pem: bytes) -> _PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey("priv-key is no private key in PEM form without a passphrase") from None
    if not isinstance(key, _PrivateKey):
        raise BadKey("priv-key is of a kind that no sign-method uses")
    return key


def _load_public(pem: bytes) -> _PublicKey:
    try:
        if b"CERTIFICATE" in pem:
            key: object = load_pem_x509_certificate(pem).public_key()
        else:
            key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("pub-key is no public key or certificate in PEM form") from None
    if not isinstance(key, _PublicKey):
        raise BadKey("pub-key is of a kind that no sign-method uses")
    return key


def _to_der(key: _PublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
