"""The certificate files of a TLS listener: what is wrong with them, and whether they changed."""

from __future__ import annotations

import ssl

from datastore.shim.transport.api import TlsFiles


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


def look(tls: TlsFiles) -> list[tuple[int, int]]:
    """Return what changes when one of the files does. Raises OSError when one is gone."""
    files = [file for file in (tls.cert, tls.key, tls.trusted_ca) if file is not None]
    return [(stat.st_ino, stat.st_mtime_ns) for stat in (file.stat() for file in files)]
