"""The name that somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def find_nearest(name: str, known: Collection[str]) -> str:
    """Return the known name most like `name`, whatever its case; empty when none is near."""
    lowered = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[found[0]] if found else ""


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the end of a message about an unknown name: the nearest one, or what to do."""
    found = find_nearest(name, known)
    return f"; did you mean {found}?" if found else "; leave it out"
