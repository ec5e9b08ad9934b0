"""Serves until a signal, and says by an exit code how that ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from datastore.shim.options import BadOptions, ServeOptions
    from datastore.shim.server import Shim

EXIT_USAGE: Final = 2
"""Options that cannot be served. 0 is stopped by a signal, 1 a fault of ours."""
EXIT_STORE: Final = 3
"""The store cannot be opened."""
EXIT_LISTEN: Final = 4
"""An address cannot be listened on."""
EXIT_FAILED: Final = 5
"""The store failed while it was served."""
RETRY_SECONDS: Final = 1.0
GC_THRESHOLDS: Final = (5_000, 1_000_000, 1_000_000)
"""Objects between two looks for cyclic garbage, and that what survives one is not looked at again.

A look at 50,000 young objects held every answer up for 35 to 45 ms, one at older ones for longer,
and looks at all that is there took a fifth of the time of loading a million keys. Calls and
connections leave no cycles (tests/unit/shim/test_garbage.py): there is next to nothing to find.
"""
GC_SECONDS: Final = 300.0
"""Between two looks at everything, for what libraries leave; more where one takes long."""
GC_SHARE: Final = 10_000
"""One part in so many of the time may go into that."""


def prepare() -> None:
    """Silence gRPC's C core; before it is loaded."""
    # It logs to standard error whatever Python does; its noise is no news to anybody.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def refuse(options: BadOptions) -> NoReturn:
    """Tell every problem with the options, and end."""
    for problem in options.problems:
        click.echo(problem, err=True)
    sys.exit(EXIT_USAGE)


def run(options: ServeOptions, patience: float = 0.0) -> int:
    """Serve until SIGTERM or SIGINT, or the end of the store; return the exit code.

    Args:
        options: What to serve.
        patience: Seconds to wait for a database server that cannot be reached.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_serve(options, patience))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(options, patience))


async def _serve(options: ServeOptions, patience: float) -> int:
    from datastore.shim.backends.api import BackendError
    from datastore.shim.server import CannotListen

    log = logging.getLogger(__name__)
    stop = asyncio.Event()
    stopping = asyncio.ensure_future(stop.wait())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    collecting = asyncio.create_task(_collect())
    try:
        async with contextlib.AsyncExitStack() as stack:
            shim = await _open(options, stack, stopping, loop.time() + patience)
            if shim is None:
                return 0
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
    finally:
        collecting.cancel()
    return 0


async def _collect() -> None:
    """Look for cyclic garbage among everything, now and then, for ever."""
    pause = GC_SECONDS
    while True:
        await asyncio.sleep(pause)
        begun = time.perf_counter()
        gc.collect()
        pause = max(GC_SECONDS, (time.perf_counter() - begun) * GC_SHARE)


async def _open(
    options: ServeOptions,
    stack: contextlib.AsyncExitStack,
    stopping: asyncio.Future[Any],
    deadline: float,
) -> Shim | None:
    """Return the running server, which `stack` ends; None where it is to stop before that."""
    from datastore.shim.backends.api import Unreachable
    from datastore.shim.server import Shim

    loop = asyncio.get_running_loop()
    while True:
        opening = asyncio.ensure_future(stack.enter_async_context(Shim(options)))
        await asyncio.wait((stopping, opening), return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            # Reading a large store takes seconds.
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            return None
        try:
            return opening.result()
        except Unreachable as error:
            if loop.time() >= deadline:
                raise
            logging.getLogger(__name__).warning("waiting for the database: %s", error)
        await asyncio.wait((stopping,), timeout=RETRY_SECONDS)
        if stopping.done():
            return None
