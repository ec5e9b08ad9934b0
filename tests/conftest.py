"""Fixtures by topic, the run's header, and how hard hypothesis tries."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib.metadata import version

import pytest
from hypothesis import HealthCheck, settings

from tests.tools.build import PROGRAMS, cache_dir, find

# The C core is loaded below; what it says of connections that tests break is no news.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# It would start threads in a child between fork and exec, where they crash now and then: a server
# that is to run as another user is forked.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

pytest_plugins = [
    "tests.support.databases",
    "tests.support.servers",
    "tests.support.etcdctl",
    "tests.support.support_table",
]

PACKAGES = ("grpcio", "protobuf", "SQLAlchemy", "hypothesis", "pytest")

settings.register_profile(
    "ci",
    max_examples=100,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("soak", settings.get_profile("ci"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_report_header() -> list[str]:
    """Say what runs, and which servers are there already."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    built = ", ".join(name for name in PROGRAMS if find(name)) or "none"
    return [
        f"python {platform.python_version()}, sqlite {sqlite3.sqlite_version}, {packages}",
        f"built in {cache_dir()}: {built}",
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run one control plane at a time: two of them starve each other on a small machine."""
    for item in items:
        if item.get_closest_marker("kube"):
            item.add_marker(pytest.mark.xdist_group("kube"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run coroutine tests on asyncio, the only loop byre runs on."""
    return "asyncio"
