"""Certificate authorities and leaf certificates as PEM files: made once, re-issued when due."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from datastore.errors import CertificateError
from datastore.paths import make_directory

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 365
RENEW_DAYS: Final = 30
"""A leaf that ends sooner than this is issued anew at the next start."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The PEM files of a certificate (or public key) and its private key."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a certificate is to say; `name` is the name of its files."""

    name: str
    common_name: str
    organizations: Sequence[str] = ()
    dns: Sequence[str] = ()
    addresses: Sequence[str] = ()
    server: bool = False
    client: bool = False
    days: int = LEAF_DAYS


class Authority:
    """A certificate authority kept in two files; the key never leaves them and memory."""

    def __init__(self, pair: KeyPair) -> None:
        self.pair = pair
        self._certificate = load_certificates(pair.cert)[0]
        self._key = load_key(pair.key)
        _require_match(self._certificate, self._key, pair)

    @classmethod
    def ensure(
        cls,
        directory: Path,
        name: str = "ca",
        common_name: str = "byre-ca",
        days: int = CA_DAYS,
    ) -> Self:
        """Load the authority of `directory`, or make it when neither file is there.

        Raises CertificateError for half an authority: a new key would strand every
        certificate issued so far.
        """
        make_directory(directory)
        pair = KeyPair(directory / f"{name}.crt", directory / f"{name}.key")
        present = [path for path in (pair.cert, pair.key) if path.exists()]
        if len(present) == 1:
            missing = pair.key if present[0] == pair.cert else pair.cert
            raise CertificateError(
                missing,
                f"missing beside {present[0].name}; put it back, or remove both "
                "to make a new authority",
            )
        if not present:
            _make_authority(pair, common_name, days)
        return cls(pair)

    @property
    def cert(self) -> Path:
        """The authority's certificate file."""
        return self.pair.cert

    @property
    def key(self) -> Path:
        """The authority's key file."""
        return self.pair.key

    def issue(self, leaf: Leaf, directory: Path | None = None) -> KeyPair:
        """Return the files of a leaf; kept while they say what is asked, else issued anew."""
        directory = directory or self.cert.parent
        make_directory(directory)
        pair = KeyPair(directory / f"{leaf.name}.crt", directory / f"{leaf.name}.key")
        if not self._is_current(leaf, pair):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = self._sign(leaf, key)
            # The old certificate goes first: a crash in between leaves no pair that mismatches.
            pair.cert.unlink(missing_ok=True)
            write_private(pair.key, _key_pem(key))
            write_public(pair.cert, certificate.public_bytes(serialization.Encoding.PEM))
        return pair

    def _is_current(self, leaf: Leaf, pair: KeyPair) -> bool:
        try:
            certificate = load_certificates(pair.cert)[0]
            key = load_key(pair.key)
            _require_match(certificate, key, pair)
            certificate.verify_directly_issued_by(self._certificate)
        except (CertificateError, ValueError, TypeError, InvalidSignature):
            return False
        left = certificate.not_valid_after_utc - _now()
        identifiers = (x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier)
        found = {extension.value for extension in certificate.extensions}
        found -= {one for one in found if isinstance(one, identifiers)}
        return (
            left > dt.timedelta(days=min(RENEW_DAYS, leaf.days / 2))
            and certificate.not_valid_before_utc <= _now()
            and certificate.subject == _subject(leaf)
            and found == set(_extensions(leaf))
        )

    def _sign(self, leaf: Leaf, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        issuer = self._certificate
        until = min(_now() + dt.timedelta(days=leaf.days), issuer.not_valid_after_utc)
        builder = _builder(_subject(leaf), issuer.subject, key, until).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
            critical=False,
        )
        for extension in _extensions(leaf):
            critical = isinstance(extension, x509.KeyUsage | x509.BasicConstraints)
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())


def ensure_signing_pair(directory: Path, name: str) -> KeyPair:
    """Return a private key and its public key, made when missing: ``NAME.key``, ``NAME.pub``.

    RSA-2048, which every verifier of service account tokens takes.
    """
    make_directory(directory)
    pair = KeyPair(directory / f"{name}.pub", directory / f"{name}.key")
    if not pair.key.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        write_private(pair.key, _key_pem(key))
    public = load_key(pair.key).public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if not pair.cert.exists() or pair.cert.read_bytes() != pem:
        write_public(pair.cert, pem)
    return pair


def check_pair(ca: Path, cert: Path, key: Path) -> None:
    """Check a client's three files; raises CertificateError for the first that does not fit."""
    authorities = load_certificates(ca)
    certificate = load_certificates(cert)[0]
    _require_match(certificate, load_key(key), KeyPair(cert, key))
    for path, one in [(cert, certificate), *((ca, authority) for authority in authorities)]:
        if one.not_valid_after_utc <= _now():
            raise CertificateError(path, f"expired on {one.not_valid_after_utc:%Y-%m-%d %H:%M}Z")
        if one.not_valid_before_utc > _now():
            raise CertificateError(path, f"valid from {one.not_valid_before_utc:%Y-%m-%d}; clock?")
    # Another authority may sign the clients: only one that claims to have issued it must have.
    for authority in authorities:
        if authority.subject == certificate.issuer:
            try:
                certificate.verify_directly_issued_by(authority)
            except (ValueError, TypeError, InvalidSignature):
                continue
            return
    if any(authority.subject == certificate.issuer for authority in authorities):
        raise CertificateError(cert, f"was not signed by the authority in {ca}")


def load_certificates(path: Path) -> Sequence[x509.Certificate]:
    """Return the certificates of a PEM file, at least one; raises CertificateError."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError:
        raise CertificateError(path, "holds no PEM certificate") from None


def load_key(path: Path) -> PrivateKey:
    """Return the private key of a PEM file; raises CertificateError."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except TypeError:
        raise CertificateError(path, "is encrypted; byre needs a key without password") from None
    except ValueError:
        raise CertificateError(path, "holds no PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CertificateError(path, "is neither an ECDSA nor an RSA key")
    return key


def write_private(path: Path, data: bytes) -> None:
    """Replace a file that only its owner may read, in one step."""
    _write(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """Replace a file that everybody may read, in one step."""
    _write(path, data, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123 (of a descriptor)
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = (error.strerror or str(error)).lower()
        raise CertificateError(path, f"cannot be written: {reason}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CertificateError(path, f"cannot be read: {reason}") from None


def _require_match(certificate: x509.Certificate, key: PrivateKey, pair: KeyPair) -> None:
    if certificate.public_key() != key.public_key():
        raise CertificateError(pair.key, f"is not the key of {pair.cert}")


def _make_authority(pair: KeyPair, common_name: str, days: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    until = _now() + dt.timedelta(days=days)
    certificate = (
        _builder(name, name, key, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(pair.key, _key_pem(key))
    write_public(pair.cert, certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    until: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of a cluster differ a little.
        .not_valid_before(_now() - dt.timedelta(minutes=5))
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(leaf: Leaf) -> x509.Name:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in leaf.organizations]
    return x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)])


def _extensions(leaf: Leaf) -> Sequence[x509.ExtensionType]:
    usages = []
    if leaf.server:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    if leaf.client:
        usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
    found: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca=False, path_length=None),
        _usage(signs_certificates=False),
    ]
    if usages:
        found.append(x509.ExtendedKeyUsage(usages))
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in leaf.dns]
    names += [x509.IPAddress(ipaddress.ip_address(one)) for one in leaf.addresses]
    if names:
        found.append(x509.SubjectAlternativeName(names))
    return found


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: PrivateKey) -> bytes:
    # Go's kube libraries read EC and RSA keys in their traditional and in PKCS 8 form alike.
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
