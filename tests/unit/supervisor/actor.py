"""A real child process in special modes; run as ``python actor.py MODE [ARGUMENT]``.

It says ``up`` when its mode is in force, so that tests wait for a line and never for a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import NoReturn


def pause() -> NoReturn:
    while True:
        signal.pause()


def say(text: str) -> None:
    print(text, flush=True)


def main(mode: str, *arguments: str) -> None:
    match mode:
        case "serve":
            say("up")
            pause()
        case "environment":
            for name in sorted(os.environ):
                say(f"{name}={os.environ[name]}")
            say("up")
            pause()
        case "crash":
            say("cannot open the database")
            sys.exit(3)
        case "ignore-term":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say("up")
            pause()
        case "grandchild":
            # It keeps the pipe, ignores SIGTERM and outlives its parent.
            subprocess.Popen([sys.executable, __file__, "ignore-term"])
            pause()
        case "flood":
            say("up")
            line = b"x" * 999 + b"\n"
            while True:
                os.write(1, line * 64)
        case _:
            sys.exit(f"unknown mode {mode} {arguments}")


if __name__ == "__main__":
    main(*sys.argv[1:])
