"""What people see: log lines, tables, colours on a terminal only."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from supervisor.lifecycle import State

_STYLES = {
    State.READY: "green",
    State.BACKOFF: "red",
    State.FAILED: "red",
    State.STOPPED: "dim",
}


def set_up_logging(*, verbose: bool) -> None:
    """Send byre's own log to standard error: coloured on a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(
            console=console, show_path=False, omit_repeated_times=False, log_time_format="%X"
        )
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, handlers=[handler])
    logging.getLogger("supervisor").setLevel(logging.DEBUG if verbose else logging.INFO)


def status_table(status: Mapping[str, Any]) -> Table:
    """Return the processes of a status as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("PROCESS", "STATE", "PID", "UPTIME", "RESTARTS", "LAST EXIT"):
        table.add_column(name, overflow="fold")
    for process in status["processes"]:
        table.add_row(
            process["name"],
            _state(process),
            str(process["pid"] or "-"),
            _duration(process["uptime_seconds"]),
            str(process["restarts"]),
            (process["last_exit"] or {}).get("reason", "-"),
        )
    return table


def status_summary(status: Mapping[str, Any]) -> Sequence[str]:
    """Return what stands above the table."""
    store = status["datastore"]
    health = "answers" if store["ready"] else store["reason"]
    return (
        f"byre {status['version']}, pid {status['pid']}, data in {status['data_dir']}",
        f"API server  {status['api']}",
        f"datastore   {store['kind']}, {', '.join(store['endpoint'])}: {health}",
    )


def _state(process: Mapping[str, Any]) -> Text:
    state = State(process["state"])
    if state is State.BACKOFF and process["crash_loop"]:
        return Text("crash loop", "red")
    if state is State.READY and process["reason"]:
        return Text("not answering", "yellow")
    return Text(state.value, _STYLES.get(state, "yellow"))


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else str(timedelta(seconds=int(seconds)))


def own_name() -> str:
    """Return what to type for byre: its path where the shell would not find it by its name."""
    called = Path(sys.argv[0])
    found = shutil.which("byre")
    is_found = found is not None and called.exists() and called.samefile(found)
    return "byre" if is_found or called.name != "byre" else str(called)
