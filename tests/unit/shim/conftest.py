"""One event loop for all tests: grpc.aio's poller does not outlive the loop it was made on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest


@pytest.fixture(scope="session", autouse=True)
async def one_event_loop(anyio_backend: str) -> AsyncIterator[None]:
    """Keep the loop until the end of the session."""
    yield  # noqa: PT022 - a fixture that returns would let the loop go
