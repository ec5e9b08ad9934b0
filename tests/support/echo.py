"""A server for RPCs of raw bytes that shows what a transport does: `python -m tests.support.echo`.

It prints the URL it is bound to and serves until SIGTERM, upon which it drains.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from datastore.shim.transport.api import (
    Call,
    Code,
    Later,
    Limits,
    RpcError,
    TlsFiles,
    Transport,
)

SERVICE = "/byre.test.Echo/"
BLOB = bytes(range(256)) * 256
OURS = ("x-",)
"""Metadata that is told back: what a transport or a client adds is theirs."""


class Echo:
    """Handlers, and what happened to their calls."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.seen: Counter[str] = Counter()
        self._blobs: dict[int, bytes] = {}
        self._released = asyncio.Event()
        for name, unary in {
            "Echo": lambda _call, body: body,
            "Soon": self.soon,
            "Later": self.later,
            "Metadata": self.metadata,
            "Status": self.status,
            "Bug": self.bug,
            "Size": self.size,
            "Fresh": self.fresh,
            "Peer": self.peer,
            "Hang": self.hang,
            "Seen": self.tell,
            "Release": self.release,
            "Stats": self.stats,
        }.items():
            transport.unary(SERVICE + name, unary)
        for name, stream in {
            "Mirror": self.mirror,
            "Sum": self.sum,
            "Count": self.count,
            "Wait": self.wait,
            "Ignore": self.ignore,
            "Early": self.early,
            "Break": self.broken,
            "Stubborn": self.stubborn,
        }.items():
            transport.stream(SERVICE + name, stream)

    async def soon(self, call: Call, body: bytes) -> bytes:
        """Answer from a task."""
        await asyncio.sleep(0)
        return body

    def later(self, call: Call, body: bytes) -> Later:
        """Answer in a later turn of the loop, without a task."""
        later = Later()
        asyncio.get_running_loop().call_soon(later.answer, body)
        return later

    def metadata(self, call: Call, body: bytes) -> bytes:
        """Tell the request's metadata, and give it back as trailers."""
        told: dict[str, list[str]] = {}
        for key, values in sorted(call.metadata.items()):
            if key.startswith(OURS):
                told[key] = [v if isinstance(v, str) else v.hex() for v in values]
                for value in values:
                    call.trailer(key, value)
        return json.dumps(told, sort_keys=True).encode()

    def status(self, call: Call, body: bytes) -> bytes:
        """Fail with the code and the message that the request names."""
        code, _, message = body.decode(errors="replace").partition(" ")
        trailers: list[tuple[str, str | bytes]]
        trailers = [("x-reason", "asked"), ("x-detail-bin", b"\0\xff")]
        raise RpcError(Code(min(number(code.encode()), 16)), message, trailers)

    def bug(self, call: Call, body: bytes) -> bytes:
        """Show what becomes of a fault of ours."""
        raise ZeroDivisionError

    def size(self, call: Call, body: bytes) -> bytes:
        """Answer with so many bytes, the same object for all who ask for that many."""
        size = number(body)
        if size not in self._blobs:
            self._blobs[size] = self.fresh(call, body)
        return self._blobs[size]

    def fresh(self, call: Call, body: bytes) -> bytes:
        """Answer with so many bytes of its own."""
        size = number(body)
        return (BLOB * (size // len(BLOB) + 1))[:size]

    def peer(self, call: Call, body: bytes) -> bytes:
        """Tell who calls."""
        peer = call.peer
        return f"{peer.common_name} {peer.cert_der is not None}".encode()

    async def hang(self, call: Call, body: bytes) -> bytes:
        """Never answer; count how the call ends under the name in the request."""
        await self._hang(call, body.decode(errors="replace"))
        return b""

    async def _hang(self, call: Call, name: str) -> None:
        self.seen[f"{name} begun"] += 1
        self.seen[f"{name} with deadline"] += call.deadline is not None
        call.on_done(lambda: self.seen.update([f"{name} done"]))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.seen[f"{name} cancelled"] += 1
            raise

    def tell(self, call: Call, body: bytes) -> bytes:
        """Tell how often something happened."""
        return b"%d" % self.seen[body.decode(errors="replace")]

    def stats(self, call: Call, body: bytes) -> bytes:
        """Tell the transport's counters."""
        return json.dumps(dict(self.transport.stats())).encode()

    async def mirror(self, call: Call) -> None:
        """Give every message back, and one more after the half-close."""
        while (message := await call.recv()) is not None:
            await call.send(message)
        await call.send(b"half-closed")

    async def sum(self, call: Call) -> None:
        """Count messages and bytes."""
        messages = size = 0
        while (message := await call.recv()) is not None:
            messages += 1
            size += len(message)
        await call.send(f"{messages} messages, {size} bytes".encode())

    async def count(self, call: Call) -> None:
        """Send so many messages of so many bytes."""
        asked = (await call.recv() or b"").split()
        if len(asked) != 2:
            raise RpcError(Code.INVALID_ARGUMENT, "ask for messages and their size")
        messages, size = map(number, asked)
        for at in range(messages):
            await call.send((b"%d " % at).ljust(size, b"."))

    async def wait(self, call: Call) -> None:
        """Send one message and never end."""
        name = (await call.recv() or b"").decode(errors="replace")
        await call.send(b"begun")
        await self._hang(call, name)

    async def ignore(self, call: Call) -> None:
        """Read nothing after the first message."""
        await self.wait(call)

    async def early(self, call: Call) -> None:
        """End in good order while the client still sends."""
        await call.recv()
        await call.send(b"enough")

    async def stubborn(self, call: Call) -> None:
        """Go on until `Release`, cancelled or not."""
        await call.send(b"begun")
        while not self._released.is_set():
            with suppress(asyncio.CancelledError):
                await self._released.wait()

    def release(self, call: Call, body: bytes) -> bytes:
        """Let all the stubborn ones end."""
        self._released.set()
        return body

    async def broken(self, call: Call) -> None:
        """Fail after two messages."""
        await call.recv()
        await call.send(b"1")
        await call.send(b"2")
        raise RpcError(Code.ABORTED, "broken % off", [("x-reason", "asked")])


def number(body: bytes) -> int:
    """Read a number. Raises RpcError."""
    if not body.isdigit() or len(body) > 9:
        raise RpcError(Code.INVALID_ARGUMENT, "ask for a number")
    return int(body)


def transport_of(name: str, limits: Limits) -> Transport:
    """Return the transport of that name."""
    if name == "grpcio":
        from datastore.shim.transport.grpcio import GrpcioTransport

        return GrpcioTransport(limits)
    from datastore.shim.transport.http2.server import Http2Transport

    return Http2Transport(limits)


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    chosen: dict[str, Any] = json.loads(arguments.limits)
    transport = transport_of(arguments.transport, replace(Limits(), **chosen))
    Echo(transport)
    tls = None
    if arguments.cert:
        require = arguments.ca is not None
        tls = TlsFiles(arguments.cert, arguments.key, arguments.ca, require)
    print(await transport.listen(arguments.listen, tls), flush=True)
    await stopped.wait()
    await transport.drain(arguments.grace)


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--transport", choices=["http2", "grpcio"], required=True)
    parser.add_argument("--listen", default="http://127.0.0.1:0")
    parser.add_argument("--limits", default="{}", help="fields of Limits as JSON")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds, after SIGTERM")
    for name in ("--cert", "--key", "--ca"):
        parser.add_argument(name, type=Path)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    arguments = parser.parse_args()
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(arguments))
    else:
        uvloop.run(serve(arguments))


if __name__ == "__main__":
    main()
