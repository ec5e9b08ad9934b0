"""All of h2spec, in its strict form."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.echo_server import EchoServer
from tests.support.servers import Binaries

pytestmark = pytest.mark.servers

CASES = 146
"""145, and one more that h2spec runs only when it is told to be strict."""


def test_every_case_passes(binaries: Binaries, tmp_path: Path):
    report = tmp_path / "report.xml"
    with EchoServer("http2", tmp_path) as server:
        host, port = server.target.rsplit(":", 1)
        argv = [str(binaries.h2spec), "-S", "-h", host, "-p", port, "-o", "3", "-j", str(report)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=110, check=False)
    outcomes = Counter(
        "failed"
        if case.find("failure") is not None or case.find("error") is not None
        else "skipped"
        if case.find("skipped") is not None
        else "passed"
        for case in ET.parse(report).iter("testcase")
    )
    assert outcomes == {"passed": CASES}, done.stdout[done.stdout.find("Failures") :]
