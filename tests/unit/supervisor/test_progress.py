from __future__ import annotations

import io

import pytest
from rich.console import Console

from supervisor.progress import Step, TerminalProgress, amount

STEPS = [
    Step("etcd", "downloading 3.7.3"),
    Step("etcd", "downloading 3.7.3", 1, 2),
    Step("etcd", "download: [Errno 1] no", finished=True),
    Step("etcd", "building 3.7.3", 1, unit="packages"),
    Step("etcd", "3.7.3 ready", finished=True),
]


def shown(*, is_terminal: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=100)
    with TerminalProgress(console) as progress:
        for step in STEPS:
            progress(step)
    return output.getvalue()


def test_a_log_gets_one_line_an_action() -> None:
    assert shown(is_terminal=False).splitlines() == [
        "etcd: downloading 3.7.3",
        "etcd: download: [Errno 1] no",
        "etcd: building 3.7.3",
        "etcd: 3.7.3 ready",
    ]


def test_a_terminal_shows_the_last_state() -> None:
    assert "etcd: 3.7.3 ready" in shown(is_terminal=True)


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Step("a", "b"), ""),
        (Step("a", "b", 1_500_000, 96_000_000), "2/96 MB"),
        (Step("a", "b", 1_500_000), "2 MB"),
        (Step("a", "b", 812, unit="packages"), "812 packages"),
    ],
)
def test_amounts_are_for_people(step: Step, text: str) -> None:
    assert amount(step) == text
