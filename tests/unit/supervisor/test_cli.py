"""The command line, without starting a control plane."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from supervisor.cli import cli

ROOT = Path(__file__).parents[3]


class Finished(NamedTuple):
    status: int
    output: str
    errors: str


def byre(directory: Path, *arguments: str) -> Finished:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "PYTHONPATH": str(ROOT),
        "BYRE_DATA_DIR": str(directory / "data"),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Finished(done.returncode, done.stdout, done.stderr)


def commands(group: click.Group, path: Sequence[str] = ()) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, [*path, name])
        found.append((" ".join([*path, name]), command))
    return found


@pytest.mark.parametrize(("name", "command"), commands(cli), ids=str)
def test_every_command_and_option_says_what_it_does(name: str, command: click.Command) -> None:
    assert command.help or command.short_help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "output":
            assert parameter.help, f"byre {name} {parameter.opts}"


def test_the_help_names_the_exit_codes(tmp_path: Path) -> None:
    done = byre(tmp_path, "--help")
    assert done.status == 0
    assert "the configuration cannot be used" in done.output


def test_the_created_configuration_is_valid(tmp_path: Path) -> None:
    created = byre(tmp_path, "config", "create")
    path = tmp_path / "byre.yaml"
    path.write_text(created.output)
    checked = byre(tmp_path, "config", "validate", "--config", str(path))
    assert checked == (0, f"{path}: valid\n", "")


def test_all_problems_of_a_configuration_are_shown_at_once(tmp_path: Path) -> None:
    path = tmp_path / "byre.yaml"
    path.write_text("spec: {api: {prot: 1, port: 0}, storge: {}}")
    done = byre(tmp_path, "config", "validate", "--config", str(path))
    assert done.status == 3
    for word in ("spec.api.prot", "did you mean port?", "spec.api.port", "spec.storge"):
        assert word in done.errors


def test_a_database_that_proves_nothing_is_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "byre.yaml"
    path.write_text("spec: {storage: {kine: {dataSource: 'postgres://u:tiger@db.example/d'}}}")
    checked = byre(tmp_path, "config", "validate", "--config", str(path))
    assert checked.status == 0
    assert "db.example:5432" in checked.errors.splitlines()[-1]
    assert checked.errors.endswith("give spec.storage.kine.caFile\n")
    planned = byre(tmp_path, "plan", "--config", str(path))
    assert planned.status == 0
    assert "tiger" not in checked.errors + checked.output + planned.errors + planned.output


def test_a_loss_is_for_byre_s_own_server(tmp_path: Path) -> None:
    path = tmp_path / "byre.yaml"
    path.write_text("spec: {storage: {type: etcd}}")
    done = byre(tmp_path, "datastore", "accept-loss", "--yes", "--config", str(path))
    assert done.status == 3
    assert "managed etcd is not served by byre" in done.errors


def test_a_loss_is_accepted_on_the_configured_store(tmp_path: Path) -> None:
    (tmp_path / "data/db").mkdir(parents=True)
    done = byre(tmp_path, "datastore", "accept-loss", "--yes")
    assert done.status == 0, done.errors
    assert "nothing is recorded here" in done.output
    assert "accepted: the revision went from 1 to 1000000001" in done.output


def test_a_configuration_that_was_named_must_exist(tmp_path: Path) -> None:
    done = byre(tmp_path, "plan", "--config", str(tmp_path / "none.yaml"))
    assert done.status == 3
    assert "none.yaml" in done.errors


def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    done = byre(tmp_path, "plan", "--single", "-o", "json")
    assert done.status == 0
    assert len(json.loads(done.output)["processes"]) == 4
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("status",), ("status", "-o", "json"), ("kubeconfig", "admin"), ("kubectl", "get", "ns")],
)
def test_without_a_control_plane_the_answer_is_advice(
    tmp_path: Path, arguments: Sequence[str]
) -> None:
    done = byre(tmp_path, *arguments)
    assert done.status == 7
    assert "byre controller" in done.errors
    assert not done.output


def test_logs_of_an_unknown_component_name_the_known_ones(tmp_path: Path) -> None:
    logs = tmp_path / "data" / "logs"
    logs.mkdir(parents=True)
    (logs / "etcd.log").write_text("one\n")
    done = byre(tmp_path, "logs", "apiserver")
    assert (done.status, "etcd" in done.errors) == (7, True)


def test_logs_are_filtered_by_level(tmp_path: Path) -> None:
    logs = tmp_path / "data" / "logs"
    logs.mkdir(parents=True)
    (logs / "etcd.log").write_text('{"level":"info","msg":"a"}\n{"level":"warn","msg":"b"}\nc\n')
    done = byre(tmp_path, "logs", "etcd", "--level", "warning")
    assert done.output == '{"level":"warn","msg":"b"}\nc\n'


def test_a_reset_leaves_what_byre_did_not_make(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "pki").mkdir(parents=True)
    (data / "mine.txt").write_text("")
    done = byre(tmp_path, "reset", "--yes")
    assert done.status == 0
    assert f"removed {data / 'pki'}" in done.output
    assert [path.name for path in data.iterdir()] == ["mine.txt"]


def test_the_version_is_also_json(tmp_path: Path) -> None:
    assert json.loads(byre(tmp_path, "version", "-o", "json").output).keys() == {
        "byre",
        "kubernetes",
    }
