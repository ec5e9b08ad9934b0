"""A data source name as text that never shows a password."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

HIDDEN: Final = "***"

_SECRET_PARAMETER: Final = re.compile(
    r"((?:^|[?&;\s])[^=?&;\s]*(?:pass(?:word|wd|phrase)?|pwd|secret|token|access.?key)=)[^&\s]*",
    re.IGNORECASE,
)
_TOKEN_SCHEMES: Final = ("nats://", "jetstream://")
SCHEME: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class Dsn:
    """A data source name; `text` is the secret, everything printable is redacted."""

    text: str

    @property
    def scheme(self) -> str:
        """The URL scheme in lower case without a driver: ``postgresql``; empty when none."""
        found = SCHEME.match(self.text)
        return found[1].lower().partition("+")[0] if found else ""

    @property
    def rest(self) -> str:
        """What follows ``scheme://``; may hold a password."""
        found = SCHEME.match(self.text)
        return self.text[found.end() :] if found else self.text

    @property
    def has_password(self) -> bool:
        """Whether redaction hides anything."""
        return redact(self.text) != self.text

    def __str__(self) -> str:
        return redact(self.text)

    def __repr__(self) -> str:
        return f"Dsn({redact(self.text)!r})"


def redact(text: str) -> str:
    """Return `text` with passwords of URLs, DSNs and secret parameters hidden.

    Rather too much is hidden than too little: a password may hold any character, so it is
    taken to end at the last @. What does not look like a DSN is returned as it is.
    """
    text = _SECRET_PARAMETER.sub(rf"\1{HIDDEN}", text)
    found = SCHEME.match(text)
    scheme = found[0] if found else ""
    credentials, at, location = text[len(scheme) :].rpartition("@")
    if not at or not (scheme or "(" in location):
        return text
    user, colon, _ = credentials.partition(":")
    if colon or scheme in _TOKEN_SCHEMES:
        credentials = f"{user}:{HIDDEN}" if colon else HIDDEN
    return f"{scheme}{credentials}@{location}"
