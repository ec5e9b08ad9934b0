"""The TLS side of a listener: HTTP/2 by ALPN, and certificates as they are on disk now."""

from __future__ import annotations

import logging
import ssl

from datastore.shim.transport.api import TlsFiles
from datastore.shim.transport.certificates import find_fault, look

log = logging.getLogger(__name__)


class Certificates:
    """Makes the context of a listener, which takes over changed files at the next handshake."""

    def __init__(self, tls: TlsFiles, protocols: list[str]) -> None:
        self._tls = tls
        self._protocols = protocols
        self._seen = look(tls)
        self._current = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context to listen with."""
        return self._current

    def _load(self) -> ssl.SSLContext:
        """Read the files. Raises OSError, also when key and certificate do not match."""
        tls = self._tls
        if fault := find_fault(tls):
            raise OSError(fault)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A ticket of before would let a client in whose authority is trusted no more.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.set_alpn_protocols(self._protocols)
        context.load_cert_chain(tls.cert, tls.key, password="")
        if tls.trusted_ca is not None:
            context.load_verify_locations(tls.trusted_ca)
            context.verify_mode = ssl.CERT_REQUIRED if tls.require else ssl.CERT_OPTIONAL
        # OpenSSL asks at each handshake, also of a client that names no server.
        context.sni_callback = self._refresh
        return context

    def _refresh(self, connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        try:
            seen = look(self._tls)
            if seen != self._seen:
                self._current = self._load()
                self._seen = seen
        except OSError as error:
            log.warning("certificates cannot be read again", extra={"reason": str(error)})
        connection.context = self._current
