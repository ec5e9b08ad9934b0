"""Measure a write from its request's bytes to its answer's, without a transport.

    python tests/benchmarks/write_path.py [--datastore sqlite:///PATH] [--seconds 2]

Requests of Kubernetes' shapes are handed to the handlers of a whole server, `clients` at a time:
as many are always under way. Prints microseconds of CPU and of time a write, and writes a batch.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import uvloop

from datastore.etcdpb import rpc_pb2 as pb
from datastore.shim.options import ServeOptions
from datastore.shim.server import Shim
from datastore.shim.transport.api import (
    Application,
    Http1Connection,
    Later,
    Limits,
    RpcError,
    Stream,
    TlsFiles,
    Unary,
)

TXN = "/etcdserverpb.KV/Txn"
KEYS = 1000
VALUE = b"x" * 1024


class Handlers:
    """A transport that carries nothing: it keeps the handlers for whoever calls them."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.methods: dict[str, Unary] = {}

    def http1(self, make: Callable[[], Http1Connection]) -> None:
        pass

    def plain(self, application: Application) -> None:
        pass

    def unary(self, path: str, handler: Unary) -> None:
        self.methods[path] = handler

    def stream(self, path: str, handler: Stream) -> None:
        pass

    async def listen(self, url: str, tls: TlsFiles | None = None) -> str:
        return url

    async def drain(self, grace: float) -> None:
        pass

    def stats(self) -> Mapping[str, int]:
        return {}


class Updates:
    """Clients that update keys of their own, each by the revision that its last answer gave."""

    def __init__(self, handler: Unary, clients: int) -> None:
        self.done = 0
        self.stopping = False
        self.idle = asyncio.Event()
        self._running = clients
        self._handler = handler
        for client in range(clients):
            self._send(client, 0)

    def _send(self, client: int, revision: int) -> None:
        if self.stopping:
            self._running -= 1
            if not self._running:
                self.idle.set()
            return
        key = b"/registry/pods/default/pod-%06d" % client
        call: Any = None  # these handlers ask nothing of it
        answer = self._handler(call, _update(key, revision))
        assert isinstance(answer, Later)

        def take(body: bytes | None, error: RpcError | None) -> None:
            assert body is not None, error
            self.done += 1
            response = pb.TxnResponse.FromString(body)
            found = response.header.revision
            if not response.succeeded:
                (one,) = response.responses
                found = one.response_range.kvs[0].mod_revision
            # As over a wire: the next request comes in a later turn of the loop.
            asyncio.get_running_loop().call_soon(self._send, client, found)

        answer.take(take)


def _update(key: bytes, revision: int) -> bytes:
    compare = pb.Compare(
        result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision
    )
    return pb.TxnRequest(
        compare=[compare],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=key, value=VALUE))],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key))],
    ).SerializeToString()


async def main() -> None:
    """Run all rounds on one server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datastore")
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        url = arguments.datastore or f"sqlite:///{directory}/state.db"
        options = ServeOptions(url, ("http://127.0.0.1:0",))
        handlers = Handlers()
        async with Shim(options, transport=handlers) as shim:
            await shim.quota.measure()
            for clients in (1, 4, 16, 64, 256):
                before = shim.writer.stats.batches
                started, cpu = time.perf_counter(), time.process_time()
                updates = Updates(handlers.methods[TXN], clients)
                await asyncio.sleep(arguments.seconds)
                updates.stopping = True
                await updates.idle.wait()
                elapsed, used = time.perf_counter() - started, time.process_time() - cpu
                done, batches = updates.done, shim.writer.stats.batches - before
                print(
                    f"{clients:4} clients {done / elapsed:8.0f}/s {elapsed / done * 1e6:7.1f} us, "
                    f"CPU {used / done * 1e6:6.1f} us, {done / batches:6.1f} writes a batch"
                )


if __name__ == "__main__":
    uvloop.run(main())
