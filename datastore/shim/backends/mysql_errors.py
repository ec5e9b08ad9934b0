"""What errors of MySQL, MariaDB and their driver mean.

An error of the server says what happened to the statement that it names; one of the connection
says nothing of what was sent. The numbers are those of the servers' error references.
"""

from __future__ import annotations

from typing import Final

import pymysql

from datastore.dsn.target import Host, Target
from datastore.shim.backends.api import BackendError, Corrupt, Full, Unavailable

GUARD: Final = 1048
"""Column cannot be null: how a packet that lost the compare ends (mysql_append.py)."""
NO_DATABASE: Final = 1049
NO_TABLE: Final = 1146
EXISTS: Final = frozenset({1007, 1050, 1061})
DENIED: Final = frozenset({1044, 1142, 1143, 1227})
LOCK_TIMEOUT: Final = 1205
CONTENDED: Final = frozenset({1020, 1205, 1213, 3101, 3572})
"""Another transaction was in the way. Not applied, once rolled back (log.md A12)."""

_GONE_AWAY: Final = 2006
_FULL: Final = frozenset({1021, 1114})
_DISK: Final = frozenset({3, 1026, 1030})
_NO_SPACE: Final = ("errno: 28", "errno 28", "error 28", "no space left", "quota exceeded")
_READ_ONLY: Final = frozenset({1290, 1792, 1836, 1874})
_DAMAGED: Final = "the database is damaged"
_FINAL: Final = {
    1034: _DAMAGED, 1035: _DAMAGED, 1194: _DAMAGED, 1195: _DAMAGED, 1712: _DAMAGED,
    1877: _DAMAGED, NO_TABLE: "a table of byre's is gone",
    1062: "somebody else writes byre's tables",
}  # fmt: skip

_ADVICE: Final = {
    1040: "raise max_connections, or free some",
    1044: "GRANT the user rights on the database",
    1045: "correct the password or the user, or let the user connect from this host",
    1049: "name a database that exists",
    1129: "unblock this host with FLUSH HOSTS on the server",
    1130: "let a user of this name connect from this host",
    1203: "raise max_user_connections, or free some",
    1226: "raise the limits of the user",
    1251: "give the user an authentication plugin of today",
    1820: "the user has to change the password first",
    1862: "the user has to change the password first",
    2026: "set the TLS mode to prefer or disable, or set up TLS on the server",
    2059: "give the user mysql_native_password or caching_sha2_password",
    3159: "the server wants TLS: set the TLS mode to require or give a CA",
}
_WORDS: Final = (
    ("refused", "is the server running, and listening there?"),
    ("no such file", "is the server running, and is the name of the socket right?"),
    ("name or service not known", "is the name of the host right?"),
    ("name resolution", "is the name of the host right?"),
    ("timed out", "is the host right, and does no firewall stand between?"),
    ("no route to host", "is the host right?"),
    ("hostname mismatch", "connect by a name that the server's certificate has"),
    ("ip address mismatch", "connect by a name that the server's certificate has"),
    ("certificate verify failed", "did the CA sign the server's certificate, for this host?"),
)


class Contended(Exception):
    """Another transaction was in the way; nothing was written."""


def to_code(error: Exception) -> int:
    """Return the number of an error, 0 where it has none."""
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def to_line(error: Exception) -> str:
    """Return what an error says, as one line of lower case beginning."""
    text = str(error.args[1]) if len(error.args) > 1 and error.args[1] else str(error)
    text = " ".join(text.split()) or type(error).__name__
    return text[0].lower() + text[1:]


def is_lost(error: Exception) -> bool:
    """Return whether the error is one of the connection, of ours or of a proxy's."""
    code = to_code(error)
    return not isinstance(error, pymysql.Error) or code < 3 or 2000 <= code < 3000 or code >= 9000


def was_sent(error: Exception, *, is_open: bool) -> bool:
    """Return whether a lost packet may have reached the server in full.

    The driver closes the connection and says "gone away" when not all of the packet was taken
    from it; a proxy may use the same words for what happened behind it.
    """
    unsent = isinstance(error, pymysql.InterfaceError) or to_code(error) == _GONE_AWAY
    return is_open or not unsent


def explain(error: Exception) -> BackendError:
    """Return what an error means to something that was not applied, or is a read."""
    code, line = to_code(error), to_line(error)
    if code in _FULL or (code in _DISK and any(words in line for words in _NO_SPACE)):
        return Full(f"no space left in the database: {line}")
    if code in _FINAL:
        return Corrupt(f"{_FINAL[code]}: {line}")
    if code in _READ_ONLY:
        return Unavailable(f"the database can only be read: {line}; connect to the primary")
    if code in CONTENDED:
        return Unavailable(f"other transactions are in the way: {line}")
    return Unavailable(f"the database does not answer: {line}" if is_lost(error) else line)


def explain_refusal(error: Exception, target: Target, host: Host) -> str:
    """Return where, why and what to do; passwords are in no message of driver or server."""
    cause = getattr(error, "original_exception", None) or error
    line = to_line(cause)
    advice = _ADVICE.get(to_code(error))
    if advice is None:
        lower = line.lower()
        advice = next((advice for words, advice in _WORDS if words in lower), "")
    where = f"cannot connect to the database at {host}, database {target.database}"
    return f"{where}: {line}; {advice}" if advice else f"{where}: {line}"
