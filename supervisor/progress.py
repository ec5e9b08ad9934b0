"""How fetching and building programs shows on a terminal, or in a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import (
    Progress as Bars,
)


@dataclass(frozen=True, slots=True)
class Step:
    """Where the obtaining of one program is; `total` is None when nobody knows."""

    name: str
    action: str
    done: int = 0
    total: int | None = None
    unit: str = "bytes"
    finished: bool = False


Report = Callable[[Step], None]


def SILENT(step: Step) -> None:  # noqa: N802 (a constant of type Report)
    """Show nothing."""


class TerminalProgress:
    """A context in which steps are shown: bars on a terminal, one line an action elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, str] = {}
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tasks:
            self._bars.stop()

    def __call__(self, step: Step) -> None:
        """Show one step."""
        if not self._console.is_terminal:
            self._line(step)
            return
        if step.name not in self._tasks:
            self._bars.start()
            self._tasks[step.name] = self._bars.add_task(step.name, total=None, amount="")
        self._bars.update(
            self._tasks[step.name],
            description=f"{step.name}: {step.action}",
            completed=step.total if step.finished else step.done,
            total=1 if step.finished and step.total is None else step.total,
            amount=amount(step),
        )
        if step.finished:
            self._bars.stop_task(self._tasks[step.name])

    def _line(self, step: Step) -> None:
        if self._last.get(step.name) != step.action:
            self._last[step.name] = step.action
            text = f"{step.name}: {step.action}"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def amount(step: Step) -> str:
    """Return how much is done, for people: ``12/48 MB``, ``812 packages``."""
    if not step.done:
        return ""
    if step.unit == "bytes":
        total = f"/{step.total / 1e6:.0f}" if step.total else ""
        return f"{step.done / 1e6:.0f}{total} MB"
    return f"{step.done} {step.unit}"
