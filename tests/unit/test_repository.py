"""Rules of the repository that no linter knows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for package in ("datastore", "supervisor")
    for path in (ROOT / package).rglob("*.py")
    if "etcdpb" not in path.parts
)
SUPERVISORD = {
    *("childutils", "compat", "confecho", "datatypes", "dispatchers", "events", "http"),
    *("http_client", "loggers", "medusa", "options", "pidproxy", "poller", "process"),
    *("rpcinterface", "scripts", "skel", "socket_manager", "states", "supervisorctl"),
    *("supervisord", "templating", "tests", "ui", "web", "xmlrpc"),
}
VAGUE = {"utils", "helpers", "common", "manager", "base", "misc"}


def test_no_module_of_supervisor_is_named_like_one_of_supervisord() -> None:
    ours = {path.stem for path in (ROOT / "supervisor").iterdir()}
    assert not ours & SUPERVISORD


def test_supervisor_itself_is_only_a_docstring() -> None:
    module = ast.parse((ROOT / "supervisor" / "__init__.py").read_text())
    assert ast.get_docstring(module)
    assert len(module.body) == 1


def test_proto_is_not_a_package() -> None:
    assert not list((ROOT / "proto").glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert path.stem not in VAGUE
