"""etcdctl against two servers at once: the shim and etcd have to print the same."""

from __future__ import annotations

import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.divergences import PRINTED
from tests.support.etcd import etcd
from tests.support.running import Server
from tests.support.servers import Binaries
from tests.support.shim import shim

NOISE = (
    (r'(?m)^\{"level":.*\n', ""),  # clientv3's own log lines
    (r"(unix|http)://[^\s,\"|]+|127\.0\.0\.1:\d+", "ADDRESS"),
    (r"took( =|) [0-9.]+[^ 0-9]?s|took: [0-9.]+[^ 0-9]?s", "took TIME"),
    (r'"took":"[^"]+"', "took TIME"),
    (r"granted with TTL\((\d+)s\), remaining\(\d+s\)", r"granted with TTL(\1s), remaining(...)"),
    (r'("(?:cluster_id|member_id|raft_term|leader|ID|id|hash)":)-?\d+', r"\1N"),
    (r'("(?:dbSize|raftIndex|raftTerm|raftAppliedIndex|dbSizeInUse)":)\d+', r"\1N"),
    (r'("(?:ClusterID|MemberID|RaftTerm|Hash|Leader|ID)" : )\d+', r"\1N"),
    (r'("(?:RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse)" : )\d+', r"\1N"),
    *((entry.pattern, entry.printed) for entry in PRINTED),
    (r"\b[0-9a-f]{12,16}\b", "ID"),  # printed without leading zeros
    (r"\b[0-9.]+ [kM]?B\b", "SIZE"),
    (r"(true, false, )\d+, \d+, \d+", r"\1TERM, INDEX, INDEX"),
    (r"\b\d+%", "PART"),
    (r'"Took" : [0-9.]+[^ 0-9]?s', "Took TIME"),
    (r"(ADDRESS, )\d+(, \d+)$", r"\1HASH\2"),
)


class Ran(NamedTuple):
    """What a command left behind."""

    status: int
    output: str
    errors: str


class Shell:
    """etcdctl against one server. LEASE0 is the first lease granted here, MEMBER the member."""

    def __init__(self, binary: Path, server: Server) -> None:
        self.server = server
        self.leases: list[str] = []
        self._prefix = [str(binary), f"--endpoints={server.target}", "--command-timeout=10s"]

    def _argv(self, command: str) -> list[str]:
        for number, lease in enumerate(self.leases):
            command = command.replace(f"LEASE{number}", lease)
        if "MEMBER" in command:
            member = self.raw("member list").output.partition(",")[0]
            command = command.replace("MEMBER", member)
        return [*self._prefix, *shlex.split(command)]

    def raw(self, command: str, text: str = "", seconds: float = 30.0) -> Ran:
        """Run one command with `text` as its input."""
        done = subprocess.run(
            self._argv(command),
            input=text,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=seconds,
            check=False,
        )
        granted = re.match(r"lease (\w+) granted", done.stdout)
        if granted:
            self.leases.append(granted[1])
        return Ran(done.returncode, done.stdout, done.stderr)

    def run(self, command: str, text: str = "") -> Ran:
        """Run one command and take out what two servers do not share."""
        status, output, errors = self.raw(command, text)
        return Ran(status, self.quiet(output), self.quiet(errors))

    def quiet(self, text: str) -> str:
        """Replace ids, addresses, sizes and times."""
        for number, lease in enumerate(self.leases):
            text = text.replace(lease, f"LEASE{number}").replace(str(int(lease, 16)), "LEASE")
        for pattern, replacement in NOISE:
            text = re.sub(pattern, replacement, text)
        return text

    @contextmanager
    def started(self, command: str) -> Iterator[Started]:
        """Start a command that does not end by itself."""
        with subprocess.Popen(
            self._argv(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield Started(process, self)
            finally:
                process.terminate()  # SIGINT is ignored below a job in the background
                process.wait(30)

    def revision(self) -> int:
        """Return the current revision."""
        found = re.search(r'"revision":(\d+)', self.raw("get x -w json").output)
        assert found
        return int(found[1])

    def watch(self, arguments: str, last: str) -> str:
        """Watch until a line with `last` in it is printed."""
        with self.started(f"watch {arguments}") as watching:
            return watching.until(last)


class Started(NamedTuple):
    """A command under way."""

    process: subprocess.Popen[str]
    shell: Shell

    def say(self, line: str) -> None:
        """Give it a line of input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def until(self, last: str) -> str:
        """Return what it prints, up to a line with `last` in it."""
        assert self.process.stdout is not None
        printed = []
        for line in self.process.stdout:
            printed.append(line)
            if last in line:
                return self.shell.quiet("".join(printed))
        raise AssertionError(f"it ended after {printed}, without {last}")


class Pair(NamedTuple):
    """The same commands on both."""

    ours: Shell
    etcds: Shell

    def agree(self, commands: str, text: str = "") -> Ran:
        """Run commands, one a line, on both, compare each, and return the last."""
        for command in filter(None, map(str.strip, commands.splitlines())):
            ours, etcds = self.ours.run(command, text), self.etcds.run(command, text)
            assert ours == etcds, command
        return etcds

    def revision(self) -> int:
        """Return the current revision of both."""
        revision = self.etcds.revision()
        assert self.ours.revision() == revision
        return revision


@contextmanager
def pair_of(backend: str, binaries: Binaries, directory: Path) -> Iterator[Pair]:
    """Start a shim and an etcd, both empty: revisions are equal all along."""
    servers = shim(directory, backend), etcd(binaries.etcd, directory)
    try:
        for server in servers:
            server.start()
        yield Pair(*(Shell(binaries.etcdctl, server) for server in servers))
    finally:
        for server in servers:
            server.close()


BACKENDS = ("memory", "sqlite")


@pytest.fixture(scope="module", params=BACKENDS)
def pair(
    request: pytest.FixtureRequest, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Give a shim and an etcd that the tests of a module share."""
    with pair_of(request.param, binaries, tmp_path_factory.mktemp("etcdctl")) as made:
        yield made


@pytest.fixture(params=BACKENDS)
def new_pair(request: pytest.FixtureRequest, binaries: Binaries, tmp_path: Path) -> Iterator[Pair]:
    """Give a shim and an etcd for one test alone."""
    with pair_of(request.param, binaries, tmp_path) as made:
        yield made


@pytest.fixture
def key() -> str:
    """Give a case keys of its own."""
    return uuid.uuid4().hex[:8]


def commands(binary: Path, *path: str) -> list[str]:
    """Return every command that ends a path of etcdctl's help."""
    printed = subprocess.run(
        [binary, *path, "--help"], capture_output=True, text=True, check=True
    ).stdout
    # At the top in groups, each under a line that ends with "commands".
    groups = re.findall(r"(?m)^(?:[\w -]+ commands|Available Commands:)\n((?:  .*\n)+)", printed)
    names = re.findall(r"(?m)^  (\S+)", "".join(groups))
    if not names:
        return [" ".join(path)]
    return [found for name in names for found in commands(binary, *path, name)]
