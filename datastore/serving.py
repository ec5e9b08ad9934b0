"""Serves until a signal, and says by an exit code how that ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datastore.shim.options import ServeOptions

EXIT_USAGE: Final = 2
"""Options that cannot be served. 0 is stopped by a signal, 1 a fault of ours."""
EXIT_STORE: Final = 3
"""The store cannot be opened."""
EXIT_LISTEN: Final = 4
"""An address cannot be listened on."""
EXIT_FAILED: Final = 5
"""The store failed while it was served."""


def prepare() -> None:
    """Silence gRPC's C core; before it is loaded."""
    # It logs to standard error whatever Python does; its noise is no news to anybody.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def run(options: ServeOptions) -> int:
    """Serve until SIGTERM or SIGINT, or the end of the store; return the exit code."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_serve(options))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(options))


async def _serve(options: ServeOptions) -> int:
    from datastore.shim.backends.api import BackendError
    from datastore.shim.server import CannotListen, Shim

    log = logging.getLogger(__name__)
    stop = asyncio.Event()
    stopping = asyncio.ensure_future(stop.wait())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with contextlib.AsyncExitStack() as stack:
            opening = asyncio.ensure_future(stack.enter_async_context(Shim(options)))
            await asyncio.wait((stopping, opening), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                # Reading a large store takes seconds.
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
                return 0
            shim = opening.result()
            failing = asyncio.ensure_future(shim.failure())
            await asyncio.wait((stopping, failing), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if failing.done():
                log.error("the store must not be served", extra={"reason": failing.result()})
                return EXIT_FAILED
            failing.cancel()
    except CannotListen as error:
        log.error("%s", error)  # noqa: TRY400 - foreseeable, no traceback
        return EXIT_LISTEN
    except BackendError as error:
        log.error("cannot open the store: %s", error)  # noqa: TRY400
        return EXIT_STORE
    return 0
