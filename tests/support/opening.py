"""A backend that opens, or one that says why it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

import pytest

from datastore.shim.backends.api import Backend, NotReady, Unavailable

B = TypeVar("B", bound=Backend)


@contextmanager
def opened(backend: B) -> Iterator[B]:
    """Open a backend, and close it at the end."""
    backend.open()
    with closing(backend):
        yield backend


def refusal(backend: Backend) -> str:
    """Return why a backend does not open; nothing of it may be left open."""
    with pytest.raises(NotReady) as refused:
        backend.open()
    with pytest.raises(Unavailable, match="closed"):
        backend.head()
    return str(refused.value)
