"""How long what is random goes on in `make soak`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

SOAK_SECONDS = float(os.environ.get("BYRE_TEST_SOAK_SECONDS", "120"))


def for_long(run: Callable[[], None]) -> None:
    """Run again and again until the time is up."""
    until = time.monotonic() + SOAK_SECONDS
    while time.monotonic() < until:
        run()
