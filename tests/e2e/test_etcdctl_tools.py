"""etcdctl's locks, elections, mirrors and checks; and that no command of it is left out."""

from __future__ import annotations

import ast
import re
from functools import partial
from pathlib import Path

import pytest

from tests.support.etcdctl import Shell, commands
from tests.support.running import eventually


def test_lock_runs_a_command_under_a_lock(pair, key):
    pair.agree(f"""
        lock {key} -- echo held
        lock {key} --ttl=20 -- sh -c 'exit 3'
        get {key} --prefix --count-only -w fields
    """)


def test_a_lock_is_held_until_its_holder_ends(pair, key):
    printed = []
    for shell in pair:
        with shell.started(f"lock {key}") as holder:
            printed.append(holder.until(key))
            with shell.started(f"lock {key} -- echo now") as waiting:
                eventually(partial(_candidates, shell, key, 2), "it waits")
                holder.process.terminate()
                printed.append(waiting.until("now"))
    assert printed[:2] == printed[2:]


def test_elections(pair, key):
    pair.agree("elect")
    pair.agree(f"elect {key}")
    pair.agree(f"elect {key} a --listen")
    printed = []
    for shell in pair:
        with shell.started(f"elect {key} first") as leader:
            printed.append(leader.until("first"))
            with shell.started(f"elect {key} --listen") as observer:
                printed.append(observer.until("first"))
                with shell.started(f"elect {key} second") as next_one:
                    eventually(partial(_candidates, shell, key, 2), "it waits")
                    leader.process.terminate()
                    printed.append(next_one.until("second"))
                    printed.append(observer.until("second"))
    assert printed[:4] == printed[4:]


def _candidates(shell: Shell, election: str, count: int) -> bool:
    return shell.raw(f"get {election}/ --prefix --keys-only").output.count(election) == count


def test_mirrors_of_each_other(new_pair, key):
    new_pair.agree(f"""
        put {key}/a 1
        put {key}/b 2
        make-mirror
    """)
    for source, target in (new_pair, new_pair[::-1]):
        address = target.server.target
        with source.started(f"make-mirror {address} --prefix={key}/ --dest-prefix=copy/"):
            eventually(partial(_holds, target, "copy/a\n1\ncopy/b\n2\n"), "it is there")
            source.raw(f"put {key}/c 3")
            source.raw(f"del {key}/a")
            eventually(partial(_holds, target, "copy/b\n2\ncopy/c\n3\n"), "it follows")


def _holds(shell: Shell, printed: str) -> bool:
    return shell.raw("get copy/ --prefix").output == printed


def test_what_needs_no_server(pair):
    pair.agree("""
        version
        options
        help
        help put
        completion bash
        completion zsh
        completion fish
        completion powershell
        check perf --load=nonsense
        check datascale --load=nonsense
    """)


def test_check_datascale(pair):
    printed = []
    for shell in pair:
        ran = shell.raw("check datascale --load=s --auto-compact --auto-defrag", seconds=200)
        printed.append((ran.status, re.sub(r"[0-9.]+", "N", ran.output)))
    assert printed[0] == printed[1]
    assert printed[0][0] == 0


@pytest.mark.soak
def test_check_perf_passes(new_pair):
    """It takes a minute: five writes a second would be too slow, a hundred and fifty are asked."""
    ran = new_pair.ours.raw("check perf --load=s --auto-compact --auto-defrag", seconds=200)
    assert ran.status == 0, ran.output
    assert ran.output.splitlines()[-1] == "PASS"


def test_no_command_is_left_out(binaries):
    lines = [
        line.strip()
        for path in Path(__file__).parent.glob("test_etcdctl*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for line in node.value.splitlines()
    ]
    left = [
        command
        for command in commands(binaries.etcdctl)
        if not any(line == command or line.startswith(f"{command} ") for line in lines)
    ]
    assert left == []
