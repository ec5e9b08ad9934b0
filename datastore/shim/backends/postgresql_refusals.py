"""Why a connection to PostgreSQL was refused, and what to do about it, in one line."""

from __future__ import annotations

from datastore.dsn.target import Target
from datastore.shim.backends.postgresql_errors import to_line

# The server's own words come in its language; libpq's and those of the system are English.
_ADVICE = (
    ("connection refused", "is the server running, and listening there?"),
    ("no such file or directory", "is the server running, and is the socket's directory right?"),
    ("resolve host", "is the name of the host right?"),
    ("translate host name", "is the name of the host right?"),
    ("timeout expired", "is the host right, and does no firewall stand between?"),
    ("no route to host", "is the host right?"),
    ("password authentication failed", "correct the password or the user"),
    ("no password supplied", "the server wants a password: give one"),
    ("no pg_hba.conf entry", "pg_hba.conf of the server must allow this user, host and mode"),
    ("does not support ssl", "set the TLS mode to prefer or disable, or set up TLS on the server"),
    ("certificate verify failed", "the CA that is trusted did not sign the server's certificate"),
    ("does not match host name", "connect by a name that the server's certificate has"),
    ("root certificate file", "give the CA of the server's certificate"),
    ("session is read-only", "no server of the list can be written: is the primary among them?"),
    ("hot standby mode", "no server of the list is a primary: is it among them?"),
    ("too many connections", "raise max_connections, or free some"),
    ("remaining connection slots", "raise max_connections, or free some"),
)


def explain_refusal(error: Exception, target: Target) -> str:
    """Return where, why and what to do. Never shows a password: libpq's messages have none."""
    whole = str(error).lower()
    reason = to_line(error)
    for words, advice in _ADVICE:
        if words in whole:
            return f"cannot connect to PostgreSQL at {target.place}: {reason}; {advice}"
    return f"cannot connect to PostgreSQL at {target.place}: {reason}"
