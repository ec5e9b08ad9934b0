"""Whatever comes below /v3/ is answered: no fault of ours, nothing that hangs, no end of all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore.shim.gateway.routes import ROUTES
from tests.support.client import Client
from tests.support.running import Server
from tests.support.shim import shim
from tests.support.soaking import for_long

ENDLESS = {"/v3/watch", "/v3/lock/lock", "/v3/election/observe", "/v3/election/campaign"}
LASTING = {"/v3/maintenance/alarm", "/v3/auth/enable"}
"""What might change the answers to all that follows."""
PATHS = st.one_of(
    st.sampled_from([path for path in ROUTES if path not in ENDLESS | LASTING]),
    st.sampled_from(["/v3/", "/v3/kv/none", "/v3beta/kv/range", "/v3beta/", "/v3//kv/put"]),
)
NAMES = st.sampled_from(
    [
        field
        for route in ROUTES.values()
        for each in route.request.DESCRIPTOR.fields
        for field in (each.name, each.json_name)
    ]
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["YQ==", "YS8", "1", "-1", "CREATE", "PUT"]),
)
JSON = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=9,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(NAMES, VALUES, max_size=4).map(lambda value: json.dumps(value).encode()),
)
HEADERS = st.sampled_from(
    ["", "Grpc-Timeout: 1S\r\n", "Grpc-Timeout: x\r\n", "Authorization: x\r\n"]
)


class Fuzzed:
    """A server, and an event loop of its own beside hypothesis."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.runner = asyncio.Runner()

    async def post(self, path: str, headers: str, body: bytes) -> tuple[int, bytes]:
        """Send a request and return status and body, as far as that comes within its time."""
        host, port = self.server.target.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        writer.write(
            f"{head}Grpc-Timeout: 2S\r\nConnection: close\r\n{headers}\r\n".encode() + body
        )
        try:
            async with asyncio.timeout(60):
                answer = await reader.read()
        finally:
            writer.close()
        head_bytes, _, rest = answer.partition(b"\r\n\r\n")
        return int(head_bytes.split()[1]), rest

    async def raw(self, data: bytes) -> None:
        """Send anything at all and hang up."""
        host, port = self.server.target.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v3/kv/range HTTP/1.1\r\n" + data)
        if writer.can_write_eof():
            writer.write_eof()
        async with asyncio.timeout(60):
            await reader.read()
        writer.close()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    server = shim(tmp_path_factory.mktemp("fuzz"), "memory", ["--log-level=info"])
    server.start()
    target = Fuzzed(server)
    yield target
    target.runner.run(_still_serves(server))
    target.runner.close()
    log = server.log.read_text()
    server.close()
    assert "Traceback" not in log
    assert "nobody foresaw" not in log


async def _still_serves(server: Server) -> None:
    async with Client(server.target) as client:
        await client.put(b"after")


@settings(deadline=None)
@given(PATHS, HEADERS, BODIES)
def test_every_request_is_answered_for_what_it_is(
    fuzzed: Fuzzed, path: str, headers: str, body: bytes
) -> None:
    status, answer = fuzzed.runner.run(fuzzed.post(path, headers, body))
    assert status in {200, 400, 401, 403, 404, 409, 429, 500, 501, 503, 504}
    assert b"internal error" not in answer
    if status == 500:  # what locks and elections say has no code (contract 2.11)
        assert json.loads(answer)["code"] == 2


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_what_is_hardly_http_does_no_harm(fuzzed: Fuzzed, data: bytes) -> None:
    fuzzed.runner.run(fuzzed.raw(data))


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_of_many_requests_is_answered_for_what_it_is(fuzzed: Fuzzed) -> None:
    for_long(lambda: test_every_request_is_answered_for_what_it_is(fuzzed))


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_much_that_is_hardly_http_does_no_harm(fuzzed: Fuzzed) -> None:
    for_long(lambda: test_what_is_hardly_http_does_no_harm(fuzzed))
