"""Both `supervisor` packages, ours and supervisord's, can be installed side by side."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import supervisor

PACKAGE = Path(supervisor.__file__).parent

TAKEN = """
    process options events states http web loggers dispatchers poller datatypes compat
    rpcinterface socket_manager childutils templating xmlrpc pidproxy confecho http_client
    supervisord supervisorctl tests scripts ui medusa skel
"""


@pytest.mark.parametrize("name", TAKEN.split())
def test_no_module_has_a_name_that_supervisord_uses(name: str) -> None:
    assert not (PACKAGE / f"{name}.py").exists()
    assert not (PACKAGE / name).exists()


def test_the_package_itself_holds_a_docstring_only() -> None:
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


def test_only_child_spawns_and_signals() -> None:
    for path in PACKAGE.glob("*.py"):
        if path.name == "child.py":
            continue
        text = path.read_text()
        for name in ("import subprocess", "os.kill", "pidfd_send_signal", "create_subprocess"):
            assert name not in text, f"{path.name} uses {name}"
