"""Every known trap is the business of a test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.traps import TRAPS

TESTS = Path(__file__).parents[1]


def named() -> Iterator[int]:
    """Yield the numbers in the docstrings of all tests."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                said = ast.get_docstring(node) if node.name.startswith("test_") else None
                yield from map(int, re.findall(r"\bT(\d+)\b", said or ""))


def test_every_trap_is_named_by_a_test_and_no_other_is() -> None:
    assert sorted(set(named())) == sorted(TRAPS)
