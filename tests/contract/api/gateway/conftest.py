"""The servers that speak HTTP beside gRPC, and a client of theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.api.conftest import SERVERS
from tests.support.json_client import JsonClient
from tests.support.running import Server


# That grpc's C core takes nothing but HTTP/2 is said once: test_one_port_speaks_http_too.
@pytest.fixture(params=[each for each in SERVERS if "grpcio" not in each], scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """Say which server this case runs on."""
    return str(request.param)


@pytest.fixture
async def web(server: Server) -> AsyncIterator[JsonClient]:
    """Give a client of the JSON gateway."""
    client = JsonClient(f"http://{server.target}")
    yield client
    await client.close()
