"""Data source names: the ways people write them, and what they mean."""

from datastore.dsn.parse import is_server, to_target
from datastore.dsn.sqlite import check_sqlite_parameters, sqlite_path
from datastore.dsn.target import Access, Host, Target, Tls, TlsMode
from datastore.dsn.text import HIDDEN, Dsn, redact

__all__ = [
    "HIDDEN",
    "Access",
    "Dsn",
    "Host",
    "Target",
    "Tls",
    "TlsMode",
    "check_sqlite_parameters",
    "is_server",
    "redact",
    "sqlite_path",
    "to_target",
]
