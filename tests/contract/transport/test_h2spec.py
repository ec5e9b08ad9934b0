"""All of h2spec, in its strict form."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.echo_server import EchoServer
from tests.support.servers import Binaries
from tests.support.shim import shim

pytestmark = pytest.mark.servers

CASES = 146
"""145, and one more that h2spec runs only when it is told to be strict."""


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[str]:
    with EchoServer("http2", tmp_path) as server:
        yield server.target


@pytest.fixture
def whole_server(tmp_path: Path) -> Iterator[str]:
    server = shim(tmp_path, "memory", ["--transport=http2"])
    server.start()
    yield server.target
    assert server.stop() == 0


def failures(binary: Path, target: str, directory: Path) -> list[str]:
    """Run h2spec; return the cases that did not pass."""
    report = directory / "report.xml"
    host, port = target.rsplit(":", 1)
    argv = [str(binary), "-S", "-h", host, "-p", port, "-o", "3", "-j", str(report)]
    subprocess.run(argv, capture_output=True, timeout=110, check=False)
    cases = list(ET.parse(report).iter("testcase"))
    assert len(cases) == CASES
    return [str(case.get("classname")) for case in cases if len(case)]


def test_every_case_passes(binaries: Binaries, echo: str, tmp_path: Path):
    assert failures(binaries.h2spec, echo, tmp_path) == []


def test_where_http_1_is_spoken_too_it_answers_what_is_not_http_2(
    binaries: Binaries, whole_server: str, tmp_path: Path
):
    """h2spec wants silence; HTTP/1.1 says 400, and the connection ends either way."""
    assert failures(binaries.h2spec, whole_server, tmp_path) == [
        "Sends invalid connection preface"
    ]
