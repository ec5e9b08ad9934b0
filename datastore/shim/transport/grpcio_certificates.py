"""The certificate files of a TLS listener of grpc, read again when they change, as etcd does."""

from __future__ import annotations

import logging

import grpc

from datastore.shim.transport.api import TlsFiles
from datastore.shim.transport.certificates import find_fault, look

log = logging.getLogger(__name__)


class CertificateFiles:
    """Gives grpc the certificates of now at each handshake."""

    def __init__(self, tls: TlsFiles) -> None:
        self._tls = tls
        self._seen: list[tuple[int, int]] = []

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Read the files. Raises OSError, also when key and certificate do not match."""
        tls = self._tls
        seen = look(tls)
        if fault := find_fault(tls):
            raise OSError(fault)
        self._seen = seen
        return grpc.ssl_server_certificate_configuration(
            [(tls.key.read_bytes(), tls.cert.read_bytes())],
            root_certificates=tls.trusted_ca.read_bytes() if tls.trusted_ca else None,
        )

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new certificates, or None to go on with those of before. Called by grpc."""
        try:
            if look(self._tls) == self._seen:
                return None
            return self.load()
        except OSError as error:
            log.warning("certificates cannot be read again", extra={"reason": str(error)})
            return None
