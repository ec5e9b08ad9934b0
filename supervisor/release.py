"""Which byre this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def byre_version() -> str:
    """Return the installed version, or ``unreleased`` when run from a checkout."""
    try:
        return version("byre")
    except PackageNotFoundError:
        return "unreleased"
