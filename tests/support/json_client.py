"""A client of the JSON gateway, for tests: unary calls, and streams that go both ways."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx

from tests.support.client import SECONDS


class Answer(NamedTuple):
    """What came back."""

    status: int
    value: Any
    """The JSON, or the text where it is none."""
    headers: Mapping[str, str]

    @property
    def refusal(self) -> tuple[int, int, str]:
        """HTTP status, code and message of an error."""
        assert self.value.keys() == {"code", "message"}
        return self.status, self.value["code"], self.value["message"]


def b64(octets: bytes) -> str:
    """Return bytes as they are in JSON."""
    return base64.b64encode(octets).decode()


class JsonStream:
    """One streaming call."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""
        self.status = 0

    def send(self, *requests: Any) -> None:
        """Send requests; bytes are sent as they are. etcd answers once there will be no more."""
        for request in requests:
            text = request if isinstance(request, bytes) else json.dumps(request).encode()
            self._writer.write(b"%x\r\n%b\r\n" % (len(text), text))

    def half_close(self) -> None:
        """Say that no request will follow."""
        self._writer.write(b"0\r\n\r\n")

    async def next(self) -> Any:
        """Return the next answer, None behind the last."""
        async with asyncio.timeout(SECONDS):
            if not self.status:
                await self._read_head()
            while b"\n" not in self._rest:
                size = int(await self._reader.readline(), 16)
                if not size:
                    return None
                self._rest += await self._reader.readexactly(size)
                await self._reader.readline()
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    async def result(self) -> Any:
        """Return the next answer, which is no error."""
        answer = await self.next()
        assert answer.keys() == {"result"}
        return answer["result"]

    async def _read_head(self) -> None:
        self.status = int((await self._reader.readline()).split()[1])
        while await self._reader.readline() != b"\r\n":
            pass


class JsonClient:
    """Calls of one server.

    Args:
        url: Its base.
        options: More for httpx, such as `verify`, which takes long to make where it is not said.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._url = url
        options.setdefault("verify", False)
        self._http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=SECONDS, **options)

    async def call(
        self, path: str, request: Any = None, method: str = "POST", **headers: str
    ) -> Answer:
        """Send one request below /v3/; bytes are sent as they are."""
        body = request if isinstance(request, bytes) else json.dumps(request or {}).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send(method, f"/v3/{path}", body, named)

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send anything."""
        answer = await self._http.request(method, path, content=body, headers=headers)
        is_json = answer.headers.get("content-type") == "application/json" and answer.content
        return Answer(
            answer.status_code, answer.json() if is_json else answer.text, answer.headers
        )

    async def result(self, path: str, request: Any = None, **headers: str) -> Any:
        """Return the answer to a request that is served."""
        answer = await self.call(path, request, **headers)
        assert answer.status == 200, answer
        return answer.value

    @asynccontextmanager
    async def stream(self, path: str, *requests: Any, **headers: str) -> AsyncIterator[JsonStream]:
        """Send requests over TCP, and hang up in the end."""
        async with self.open_stream(path, **headers) as stream:
            stream.send(*requests)
            stream.half_close()
            yield stream

    @asynccontextmanager
    async def open_stream(self, path: str, **headers: str) -> AsyncIterator[JsonStream]:
        """Open a streaming call on which requests can be sent, and hang up in the end."""
        host, port = self._url.removeprefix("http://").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        named = "".join(
            f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()
        )
        head = f"POST /v3/{path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n"
        writer.write(f"{head}{named}\r\n".encode())
        try:
            yield JsonStream(reader, writer)
        finally:
            writer.close()

    async def close(self) -> None:
        """Hang up."""
        await self._http.aclose()
