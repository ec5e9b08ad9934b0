"""JSON Web Tokens and their keys, as given to --auth-token; the wire is in tests/contract/api."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from datastore.shim.auth.jwt import SIGN_METHODS, BadKey, JwtTokens, VerifyOnly, load_keys
from datastore.shim.mvcc.auth import Auth, Identity
from tests.support.certificates import Authority

KEYS: dict[str, Any] = {
    "RS": rsa.generate_private_key(65537, 2048),
    "PS": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "Ed": ed25519.Ed25519PrivateKey.generate(),
}
STATE = Auth(enabled=True, revision=9)


def pems(method: str) -> tuple[bytes, bytes]:
    key = KEYS.get(method) or KEYS.get(method[:2])
    if key is None:
        return b"a secret of some length, as it should be for a signature like this", b""
    return private_pem(key), key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private_pem(key, encryption=None):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )


@pytest.mark.parametrize("method", SIGN_METHODS)
def test_every_method_of_etcd_signs_and_verifies(method):
    keys = load_keys(method, *pems(method))
    token = JwtTokens(method, keys).issue(STATE, "a", 7)
    assert JwtTokens(method, keys).find(STATE, token) == Identity("a", 9)
    assert JwtTokens(method, keys).find(STATE, token[:-5] + "AAAAA") is None


def test_a_token_ends_at_its_time():
    keys = load_keys("RS256", *pems("RS256"))
    past = JwtTokens("RS256", keys, ttl=10, now=lambda: 1000.0).issue(STATE, "a", 7)
    assert JwtTokens("RS256", keys).find(STATE, past) is None


@pytest.mark.parametrize("revision", [float("inf"), float("nan"), -1, 1 << 64, True])
def test_a_revision_is_a_number_that_a_revision_can_be(revision):
    private, public = pems("RS256")
    token = jwt.encode({"username": "a", "revision": revision}, private, "RS256")
    assert JwtTokens("RS256", load_keys("RS256", b"", public)).find(STATE, token) is None


def test_a_private_key_alone_is_enough():
    assert load_keys("ES256", pems("ES256")[0], b"") is not None


def test_a_public_key_alone_verifies_only():
    private, public = pems("RS256")
    verify = JwtTokens("RS256", load_keys("RS256", b"", public))
    with pytest.raises(VerifyOnly):
        verify.issue(STATE, "a", 7)
    signed = JwtTokens("RS256", load_keys("RS256", private, b"")).issue(STATE, "a", 7)
    assert verify.find(STATE, signed) == Identity("a", 9)


def test_a_certificate_holds_a_public_key(tmp_path):
    cert, key = Authority("test").issue(tmp_path, "signer")
    keys = load_keys("ES256", key.read_bytes(), cert.read_bytes())
    assert JwtTokens("ES256", keys).find(STATE, JwtTokens("ES256", keys).issue(STATE, "a", 7))


BAD_KEYS = [
    ("RS256", b"", b"", "needs priv-key, or pub-key to verify tokens only"),
    ("HS256", b"", b"", "needs priv-key, a file with the secret"),
    ("RS256", pems("PS256")[0], pems("RS256")[1], "pub-key is not the public key of priv-key"),
    ("RS256", pems("ES256")[0], b"", "sign-method RS256 needs an RSA key"),
    ("ES256", b"", pems("RS256")[1], "sign-method ES256 needs a key of an elliptic curve"),
    ("EdDSA", pems("RS256")[0], b"", "sign-method EdDSA needs an Ed25519 key"),
    ("RS256", b"x", b"", "priv-key is no private key in PEM form without a passphrase"),
    ("RS256", b"", b"x", "pub-key is no public key or certificate in PEM form"),
    (
        "RS256",
        private_pem(KEYS["RS"], serialization.BestAvailableEncryption(b"pass")),
        b"",
        "priv-key is no private key in PEM form without a passphrase",
    ),
    (
        "EdDSA",
        private_pem(x25519.X25519PrivateKey.generate()),
        b"",
        "priv-key is of a kind that no sign-method uses",
    ),
    ("ES256", pems("ES384")[0], b"", "sign-method ES256 needs a key on another curve"),
]


# Keys are others in every process: they must not be part of a name.
@pytest.mark.parametrize(
    ("method", "private", "public", "fault"), BAD_KEYS, ids=range(len(BAD_KEYS))
)
def test_keys_that_do_not_fit_are_told_of(method, private, public, fault):
    with pytest.raises(BadKey, match=fault):
        load_keys(method, private, public)


def test_no_text_shows_a_key():
    assert "secret" not in repr(load_keys("HS256", b"a secret", b""))
