from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from datastore import pki
from datastore.errors import CertificateError
from datastore.pki import Authority, KeyPair, Leaf, check_pair, ensure_signing_pair

SERVER = Leaf(
    "server", "s", dns=("localhost",), addresses=("127.0.0.1", "::1"), server=True, client=True
)


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    first = Authority.ensure(tmp_path, "ca", "test-ca")
    before = first.cert.read_bytes()
    assert Authority.ensure(tmp_path, "ca", "another").cert.read_bytes() == before


def test_only_keys_are_private(tmp_path: Path) -> None:
    authority = Authority.ensure(tmp_path)
    pair = authority.issue(SERVER)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600}
    assert pair == KeyPair(tmp_path / "server.crt", tmp_path / "server.key")


def test_half_an_authority_is_refused(tmp_path: Path) -> None:
    authority = Authority.ensure(tmp_path)
    authority.key.unlink()
    with pytest.raises(CertificateError, match=r"ca\.key: missing beside ca\.crt; put it back"):
        Authority.ensure(tmp_path)


def test_an_authority_with_another_key_is_refused(tmp_path: Path) -> None:
    one, two = Authority.ensure(tmp_path / "1"), Authority.ensure(tmp_path / "2")
    one.key.write_bytes(two.key.read_bytes())
    with pytest.raises(CertificateError, match="is not the key of"):
        Authority.ensure(tmp_path / "1")


def test_a_leaf_is_kept_while_it_says_what_is_asked(tmp_path: Path) -> None:
    authority = Authority.ensure(tmp_path)
    before = authority.issue(SERVER).cert.read_bytes()
    assert Authority.ensure(tmp_path).issue(SERVER).cert.read_bytes() == before


@pytest.mark.parametrize(
    "changed",
    [
        replace(SERVER, dns=("localhost", "more")),
        replace(SERVER, dns=(), addresses=()),
        replace(SERVER, addresses=("127.0.0.1",)),
        replace(SERVER, common_name="t"),
        replace(SERVER, organizations=("o",)),
        replace(SERVER, client=False),
        replace(SERVER, client=False, server=False),
    ],
)
def test_a_leaf_that_is_to_say_something_else_is_issued_anew(
    tmp_path: Path, changed: Leaf
) -> None:
    authority = Authority.ensure(tmp_path)
    before = authority.issue(SERVER).cert.read_bytes()
    again = authority.issue(changed).cert.read_bytes()
    assert again != before
    assert authority.issue(changed).cert.read_bytes() == again


def test_a_leaf_is_renewed_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.ensure(tmp_path)
    before = authority.issue(SERVER).cert.read_bytes()
    now = dt.datetime.now(dt.UTC)
    monkeypatch.setattr(pki, "_now", lambda: now + dt.timedelta(days=pki.LEAF_DAYS - 31))
    assert authority.issue(SERVER).cert.read_bytes() == before
    monkeypatch.setattr(pki, "_now", lambda: now + dt.timedelta(days=pki.LEAF_DAYS - 29))
    assert authority.issue(SERVER).cert.read_bytes() != before


@pytest.mark.parametrize("damaged", ["server.crt", "server.key"])
@pytest.mark.parametrize("damage", ["missing", "empty", "foreign"])
def test_a_damaged_leaf_is_issued_anew(tmp_path: Path, damaged: str, damage: str) -> None:
    authority = Authority.ensure(tmp_path / "1")
    foreign = Authority.ensure(tmp_path / "2").issue(SERVER).cert.parent / damaged
    pair = authority.issue(SERVER)
    path = pair.cert.parent / damaged
    path.unlink()
    if damage != "missing":
        path.write_bytes(foreign.read_bytes() if damage == "foreign" else b"")
    authority.issue(SERVER)
    check_pair(authority.cert, pair.cert, pair.key)


def test_a_leaf_of_another_authority_is_issued_anew(tmp_path: Path) -> None:
    old, new = Authority.ensure(tmp_path / "1"), Authority.ensure(tmp_path / "2")
    pair = old.issue(SERVER, tmp_path / "leaf")
    new.issue(SERVER, tmp_path / "leaf")
    check_pair(new.cert, pair.cert, pair.key)


def test_a_leaf_never_outlives_its_authority(tmp_path: Path) -> None:
    authority = Authority.ensure(tmp_path, days=100)
    ends = [
        x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        for path in (authority.issue(SERVER).cert, authority.cert)
    ]
    assert ends[0] == ends[1]


def test_openssl_takes_what_is_issued(tmp_path: Path) -> None:
    authority = Authority.ensure(tmp_path)
    pair = authority.issue(SERVER)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pair.cert, pair.key)
    client = ssl.create_default_context(cafile=str(authority.cert))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(incoming, outgoing, server_hostname="localhost"),
        server.wrap_bio(outgoing, incoming, server_side=True),
    ]
    done = 0
    while done < 2:
        done = 0
        for end in ends:
            try:
                end.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                continue
    seen = ends[0].getpeercert()
    assert seen
    assert seen["subject"] == ((("commonName", "s"),),)


def test_a_signing_pair_is_kept_and_its_public_half_mended(tmp_path: Path) -> None:
    pair = ensure_signing_pair(tmp_path, "sa")
    private, public = pair.key.read_bytes(), pair.cert.read_bytes()
    load_pem_public_key(public)
    pair.cert.unlink()
    assert ensure_signing_pair(tmp_path, "sa") == pair
    assert (pair.key.read_bytes(), pair.cert.read_bytes()) == (private, public)
    assert pair.key.stat().st_mode & 0o777 == 0o600


def test_writing_leaves_nothing_beside(tmp_path: Path) -> None:
    pki.write_private(tmp_path / "a", b"1")
    pki.write_private(tmp_path / "a", b"2")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"2")]
    with pytest.raises(CertificateError, match="cannot be written: no such file"):
        pki.write_public(tmp_path / "missing/a", b"")


class TestCheckPair:
    def test_missing_files_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(CertificateError, match=r"ca\.crt: cannot be read: no such file"):
            check_pair(tmp_path / "ca.crt", tmp_path / "a.crt", tmp_path / "a.key")

    def test_a_file_that_holds_something_else(self, tmp_path: Path) -> None:
        authority = Authority.ensure(tmp_path)
        pair = authority.issue(SERVER)
        with pytest.raises(CertificateError, match=r"server\.key: holds no PEM certificate"):
            check_pair(authority.cert, pair.key, pair.key)
        with pytest.raises(CertificateError, match=r"server\.crt: holds no PEM private key"):
            check_pair(authority.cert, pair.cert, pair.cert)

    def test_a_key_of_another_certificate(self, tmp_path: Path) -> None:
        authority = Authority.ensure(tmp_path)
        pair, other = authority.issue(SERVER), authority.issue(replace(SERVER, name="other"))
        with pytest.raises(CertificateError, match=r"other\.key: is not the key of .*server\.crt"):
            check_pair(authority.cert, pair.cert, other.key)

    def test_an_authority_of_the_same_name_that_did_not_sign(self, tmp_path: Path) -> None:
        one, two = Authority.ensure(tmp_path / "1"), Authority.ensure(tmp_path / "2")
        pair = one.issue(SERVER)
        with pytest.raises(CertificateError, match="was not signed by the authority in"):
            check_pair(two.cert, pair.cert, pair.key)

    def test_clients_may_have_another_authority_than_the_server(self, tmp_path: Path) -> None:
        one = Authority.ensure(tmp_path / "1", common_name="one")
        two = Authority.ensure(tmp_path / "2", common_name="two")
        pair = one.issue(SERVER)
        check_pair(two.cert, pair.cert, pair.key)

    def test_an_expired_certificate(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        authority = Authority.ensure(tmp_path)
        pair = authority.issue(SERVER)
        later = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)
        monkeypatch.setattr(pki, "_now", lambda: later)
        with pytest.raises(CertificateError, match=r"server\.crt: expired on "):
            check_pair(authority.cert, pair.cert, pair.key)
