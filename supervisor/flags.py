"""Command lines of Go programs: defaults and a user's own arguments, each flag once."""

from __future__ import annotations

from collections.abc import Mapping


def to_argv(defaults: Mapping[str, str], extra: Mapping[str, str]) -> list[str]:
    """Return ``--name=value`` for all flags, in a fixed order.

    A user's argument replaces the default of the same name and never follows it: given twice, a
    Kubernetes list flag would hold both.
    """
    merged = {**defaults, **extra}
    return [f"--{name}={value}" for name, value in merged.items()]
