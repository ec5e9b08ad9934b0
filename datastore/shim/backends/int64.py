"""Unsigned 64-bit identities in signed 64-bit columns."""

from __future__ import annotations

_SIGN = 1 << 63
_MODULUS = 1 << 64


def to_signed(number: int) -> int:
    """Return the signed 64-bit number with the bits of an unsigned one."""
    return number - _MODULUS if number >= _SIGN else number


def to_unsigned(number: int) -> int:
    """Return the unsigned 64-bit number with the bits of a signed one."""
    return number % _MODULUS
