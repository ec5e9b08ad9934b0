"""The results of the load generator as a table to read and a plot of each workload."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

_BASE: Final = "kine"
_COLOURS: Final = {"kine": "#8c6d31", "etcd": "#3b6ea5", "byre": "#2f8f4e"}


class Figures(NamedTuple):
    """What one server did in one workload with so many clients: medians over the rounds."""

    rate: float
    p50: float
    p99: float
    cpu: float
    memory: float
    failures: int


class Point(NamedTuple):
    """One line of the table."""

    workload: str
    clients: int


Table = Mapping[Point, Mapping[str, Figures]]


def write(folder: Path, datastore: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Write `report.md`, a plot of each workload, and `results.json` for `loadgen compare`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    table = tabulate(results)
    lines = [f"# kine and byre over {datastore}, etcd on its own file", "", *to_markdown(table)]
    for workload in dict.fromkeys(point.workload for point in table):
        _plot(folder / f"{workload}.svg", workload, table)
        lines += ["", f"![{workload}]({workload}.svg)"]
    (folder / "report.md").write_text("\n".join(lines) + "\n")


def tabulate(results: Iterable[Mapping[str, Any]]) -> Table:
    """Return the medians over the rounds, in the order in which they were run."""
    rounds: dict[Point, dict[str, list[Mapping[str, Any]]]] = {}
    for result in results:
        if not result.get("unsupported"):
            point = Point(result["workload"], result["clients"])
            rounds.setdefault(point, {}).setdefault(result["target"], []).append(result)
    return {
        point: {name: _figures(found) for name, found in by_target.items()}
        for point, by_target in rounds.items()
    }


def to_markdown(table: Table) -> list[str]:
    """Return the lines of the table; what a cell holds is said below it."""
    names = list(dict.fromkeys(name for figures in table.values() for name in figures))
    lines = [
        f"| workload, clients | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for point, figures in table.items():
        cells = [_cell(figures.get(name), figures.get(_BASE)) for name in names]
        lines.append(f"| {point.workload} {point.clients} | {' | '.join(cells)} |")
    lines += [
        "",
        "operations/s (ratio to kine); p50/p99 in ms; CPU an operation and memory of the server",
    ]
    return lines


def _cell(figures: Figures | None, base: Figures | None) -> str:
    if figures is None:
        return "-"
    ratio = f" ({figures.rate / base.rate:.2f}x)" if base and base is not figures else ""
    failed = f" **{figures.failures} failed**" if figures.failures else ""
    return (
        f"{figures.rate:,.0f}{ratio}; {figures.p50:.1f}/{figures.p99:.1f}; "
        f"{figures.cpu:.0f} us; {figures.memory:.0f} MiB{failed}"
    )


def _figures(rounds: Sequence[Mapping[str, Any]]) -> Figures:
    def middle(name: str) -> float:
        return median(float(each[name]) for each in rounds)

    return Figures(
        middle("ops_per_sec"),
        middle("p50_ms"),
        middle("p99_ms"),
        middle("server_cpu_us_per_op"),
        middle("peak_rss_mib"),
        sum(
            sum((each.get("errors") or {}).values()) + sum((each.get("violations") or {}).values())
            for each in rounds
        ),
    )


def _plot(path: Path, workload: str, table: Table) -> None:
    """Draw rates, and beside them p99, over the numbers of clients."""
    from matplotlib.figure import Figure  # only whoever writes a report needs it

    points = [point for point in table if point.workload == workload]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    rates, tails = figure.subplots(1, 2)
    places = range(len(points))
    names = list(dict.fromkeys(name for point in points for name in table[point]))
    for number, name in enumerate(names):
        found = [table[point].get(name) for point in points]
        offsets = [place + (number - (len(names) - 1) / 2) * 0.27 for place in places]
        colour = _COLOURS.get(name)
        rates.bar(offsets, [f.rate if f else 0 for f in found], 0.25, label=name, color=colour)
        tails.bar(offsets, [f.p99 if f else 0 for f in found], 0.25, color=colour)
    for axes, title in ((rates, "operations/s"), (tails, "p99, ms (logarithmic)")):
        axes.set_xticks(list(places), [str(point.clients) for point in points])
        axes.set_xlabel("clients")
        axes.set_title(title)
    tails.set_yscale("log")
    rates.legend(title=workload)
    figure.savefig(path)
