"""The certificate files of a TLS listener, read again when they change, as etcd does."""

from __future__ import annotations

import logging
import ssl

import grpc

from datastore.shim.transport.api import TlsFiles

log = logging.getLogger(__name__)


def find_fault(tls: TlsFiles) -> str:
    """Return what is wrong with the files, or nothing. Raises OSError when one is unreadable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a passphrase given here OpenSSL would ask for one on the terminal.
        context.load_cert_chain(tls.cert, tls.key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"{tls.key} is not the key of the certificate {tls.cert}"
        return f"{tls.cert} or {tls.key} is not in PEM form, or the key has a passphrase"
    if tls.trusted_ca is not None:
        try:
            context.load_verify_locations(tls.trusted_ca)
        except ssl.SSLError:
            return f"{tls.trusted_ca} holds no certificate in PEM form"
    return ""


class CertificateFiles:
    """Gives grpc the certificates of now at each handshake."""

    def __init__(self, tls: TlsFiles) -> None:
        self._tls = tls
        self._files = [file for file in (tls.cert, tls.key, tls.trusted_ca) if file is not None]
        self._seen: list[tuple[int, int]] = []

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Read the files. Raises OSError, also when key and certificate do not match."""
        tls = self._tls
        if fault := find_fault(tls):
            raise OSError(fault)
        self._seen = self._look()
        return grpc.ssl_server_certificate_configuration(
            [(tls.key.read_bytes(), tls.cert.read_bytes())],
            root_certificates=tls.trusted_ca.read_bytes() if tls.trusted_ca else None,
        )

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new certificates, or None to go on with those of before. Called by grpc."""
        try:
            if self._look() == self._seen:
                return None
            return self.load()
        except OSError as error:
            log.warning("certificates cannot be read again", extra={"reason": str(error)})
            return None

    def _look(self) -> list[tuple[int, int]]:
        return [(stat.st_ino, stat.st_mtime_ns) for stat in (file.stat() for file in self._files)]
