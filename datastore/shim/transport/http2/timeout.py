"""The header grpc-timeout: at most eight digits and a unit."""

from __future__ import annotations

from typing import Final

_UNITS: Final = {
    0x48: 3600.0,  # H
    0x4D: 60.0,  # M
    0x53: 1.0,  # S
    0x6D: 1e-3,  # m
    0x75: 1e-6,  # u
    0x6E: 1e-9,  # n
}
_MOST: Final = 9


class BadTimeout(ValueError):
    """The header is not what the gRPC protocol allows."""


def parse(value: bytes) -> float:
    """Return a timeout in seconds. Hot."""
    digits = value[:-1]
    unit = _UNITS.get(value[-1]) if 1 < len(value) <= _MOST else None
    # isdigit of bytes knows ASCII digits only.
    if unit is None or not digits.isdigit():
        raise BadTimeout
    return int(digits) * unit
