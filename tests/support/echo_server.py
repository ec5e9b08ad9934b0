"""`echo.py` as a process: started, looked at, and ended by its own id."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.support import memory

READY_SECONDS = 30
END_SECONDS = 30


class EchoServer:
    """An echo server; a context manager that checks what it has logged.

    Args:
        transport: `http2` or `grpcio`.
        directory: where its log goes.
        listen: what it listens on, as `Transport.listen` takes it.
        tls: certificate, key and the authority that clients need a certificate of.
        grace: seconds that calls under way have after SIGTERM.
        limits: fields of `Limits` that are not the usual ones.
    """

    def __init__(
        self,
        transport: str,
        directory: Path,
        listen: str = "http://127.0.0.1:0",
        tls: tuple[Path, Path, Path] | None = None,
        grace: float = 10.0,
        **limits: Any,
    ) -> None:
        self.transport = transport
        self.log = directory / f"{transport}.log"
        self.complaints: tuple[str, ...] = ()
        """Parts of lines of the log that are expected, beside those below `WARNING`."""
        self.url = ""
        argv = [sys.executable, "-m", "tests.support.echo", f"--transport={transport}"]
        argv += [f"--listen={listen}", f"--limits={json.dumps(limits)}", f"--grace={grace}"]
        if tls:
            argv += [f"--cert={tls[0]}", f"--key={tls[1]}", f"--ca={tls[2]}"]
        self._argv = argv
        self._process: subprocess.Popen[str] | None = None
        self._checked = 0

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], READY_SECONDS)
        self.url = self._process.stdout.readline().strip() if ready else ""
        if not self.url:
            self._end()
            raise AssertionError(f"the echo server did not start:\n{self.log.read_text()}")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        code = self._running.poll()
        self._end()
        if kind is None:
            assert not code, f"ended with {code}:\n{self.log.read_text()}"
            self.check_log()

    def check_log(self) -> None:
        """Fail if something was logged since the last time that nobody expected."""
        with self.log.open("rb") as log:
            log.seek(self._checked)
            text = log.read()
        self._checked += len(text)
        lines = text.decode(errors="replace").splitlines()
        bad = [
            line
            for line in lines
            if line.startswith(("WARNING", "ERROR", "CRITICAL", "Traceback", "Exception"))
            and not any(expected in line for expected in self.complaints)
        ]
        assert not bad, "\n".join(lines)

    @property
    def target(self) -> str:
        """As grpc-go dials it."""
        return self.url.split("://", 1)[1] if self.url.startswith("http") else self.url

    @property
    def rss_bytes(self) -> int:
        """How much memory the process has now."""
        return memory.rss_bytes(self._running.pid)

    def forget_peak(self) -> None:
        """Let `peak_rss_bytes` begin anew."""
        memory.forget_peak(self._running.pid)

    @property
    def peak_rss_bytes(self) -> int:
        """How much memory the process had at most."""
        return memory.peak_rss_bytes(self._running.pid)

    @property
    def cpu_seconds(self) -> float:
        """How long the process has computed."""
        fields = Path(f"/proc/{self._running.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def terminate(self) -> None:
        """Tell it to drain and end."""
        self._running.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait until it has ended and return its exit status."""
        return self._running.wait(END_SECONDS)

    @property
    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def _end(self) -> None:
        process = self._running
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
