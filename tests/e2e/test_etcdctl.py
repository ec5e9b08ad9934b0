"""etcdctl prints the same on the shim as on etcd, ids, sizes and times aside."""

from __future__ import annotations

import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

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
    (r'"peerURLs":\["ADDRESS"\],|"PeerURL" : .*\n', ""),  # the shim has no peers
    (r", (ADDRESS)?, ADDRESS, (true|false)$", r", PEER, ADDRESS, \2"),
    (r"\b[0-9a-f]{12,16}\b", "ID"),  # printed without leading zeros
    (r"\b[0-9.]+ [kM]?B\b", "SIZE"),
    (r"(true, false, )\d+, \d+, \d+", r"\1TERM, INDEX, INDEX"),
    (r"\b\d+%", "PART"),
    (r'"Took" : [0-9.]+[^ 0-9]?s', "Took TIME"),
    (r"(ADDRESS, )\d+(, \d+)$", r"\1HASH\2"),
    (r'("(?:version|storageVersion)":)"3\.\d+\.\d+"', r'\1"VERSION"'),
    (r'("(?:Version|StorageVersion)" : )"?3\.\d+\.\d+"?', r"\1VERSION"),
)


class Ran(NamedTuple):
    """What a command left behind."""

    status: int
    output: str
    errors: str


class Shell:
    """etcdctl against one server."""

    def __init__(self, binary: Path, server: Server) -> None:
        self._prefix = [str(binary), f"--endpoints={server.target}", "--command-timeout=10s"]
        self.leases: list[str] = []

    def raw(self, command: str, text: str = "") -> Ran:
        """Run one command; LEASE0 stands for the first lease granted here."""
        for number, lease in enumerate(self.leases):
            command = command.replace(f"LEASE{number}", lease)
        done = subprocess.run(
            [*self._prefix, *shlex.split(command)],
            input=text,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=30,
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

    def watch(self, arguments: str, last: str) -> str:
        """Watch until a line with `last` in it is printed."""
        command = [*self._prefix, "watch", *shlex.split(arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            printed = []
            for line in watching.stdout:
                printed.append(line)
                if last in line:
                    break
            watching.terminate()
            watching.wait(10)
        return self.quiet("".join(printed))


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
        found = re.search(r'"revision":(\d+)', self.agree("get x -w json").output)
        assert found
        return int(found[1])


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def pair(
    request: pytest.FixtureRequest, binaries: Binaries, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Start a shim and an etcd, both empty: revisions are equal all along."""
    directory = tmp_path_factory.mktemp("etcdctl")
    servers = shim(directory, request.param), etcd(binaries.etcd, directory)
    try:
        for server in servers:
            server.start()
        yield Pair(*(Shell(binaries.etcdctl, server) for server in servers))
    finally:
        for server in servers:
            server.close()


@pytest.fixture
def key() -> str:
    """Give a case keys of its own."""
    return uuid.uuid4().hex[:8]


FORMATS = ("simple", "json", "fields", "protobuf")


def test_put_and_its_flags(pair, key):
    pair.agree(f"""
        put {key} one
        put {key} two --prev-kv
        put {key} --ignore-value --prev-kv
        put {key} three --ignore-lease
        put {key}-missing --ignore-value
        put {key}-missing x --ignore-lease
        put {key} x --lease=1234
        put {key} x --ignore-value
        put ''
        get {key} -w fields
    """)


@pytest.mark.parametrize("form", FORMATS[:3])
def test_get_and_its_flags(pair, key, form):
    pair.agree(f"""
        put {key}b 1
        put {key}a 2
        put {key}c 0
        put {key}a 3
        put {key}c%_ x
    """)
    flags = (
        "",
        "--limit=2",
        "--keys-only",
        "--count-only",
        "--print-value-only",
        "--consistency=s",
        "--sort-by=CREATE",
        "--sort-by=MODIFY --order=DESCEND",
        "--sort-by=VALUE --order=ASCEND --limit=1",
        "--sort-by=VERSION --order=DESCEND",
        "--order=DESCEND",
        "--rev=1000000",
        "--min-mod-rev=3 --max-mod-rev=8",
        "--min-create-rev=3",
        "--max-create-rev=5",
        "--stream",
        "--stream --limit=2",
    )
    for flag in flags:
        pair.agree(f"get {key} --prefix {flag} -w {form}")
    pair.agree(f"""
        get {key}a -w {form}
        get {key}missing -w {form}
        get {key}a {key}c -w {form}
        get {key}c --from-key --limit=2 -w {form}
        get '' --prefix --count-only -w {form}
        get {key}a --hex -w simple
    """)


def test_get_at_a_revision(pair, key):
    pair.agree(f"put {key} old")
    revision = pair.revision()
    pair.agree(f"""
        put {key} new
        get {key} --rev={revision}
        get {key} --rev={revision - 1}
        del {key}
        get {key} --rev={revision + 1} -w json
        get {key}
    """)


@pytest.mark.parametrize("form", FORMATS[:3])
def test_del_and_its_flags(pair, key, form):
    pair.agree(f"""
        put {key}a 1
        put {key}b 2
        put {key}c 3
        put {key}d 4
        del {key}a -w {form}
        del {key}a -w {form}
        del {key}b {key}c --prev-kv -w {form}
        del {key} --prefix --prev-kv -w {form}
        put ~{key} x
        put ~~{key} x
        del ~ --from-key -w {form}
    """)


@pytest.mark.parametrize("form", FORMATS[:3])
@pytest.mark.parametrize(
    "guard",
    [
        'mod("KEY") = "0"',
        'ver("KEY") > "1"',
        'val("KEY") = "x"',
        'c("KEY") < "9"',
    ],
)
def test_txn(pair, key, form, guard):
    text = f"{guard.replace('KEY', key)}\n\nput {key} x\nget {key}\n\nget {key}\ndel {key}\n\n"
    for _ in range(3):
        pair.agree(f"txn -w {form}", text)


def test_a_bad_txn(pair, key):
    pair.agree("txn", f"\nput {key} 1\nput {key} 2\n\n\n")
    pair.agree("txn", f"mod('{key}') = 0\n\n\n\n")


@pytest.mark.parametrize(
    ("flags", "last"),
    [
        ("", "the-end"),
        ("--prev-kv", "the-end"),
        ("-w fields", "the-end"),
        ("--prev-kv -w json", "dGhlLWVuZA=="),
    ],
)
def test_watch_history(pair, key, flags, last):
    pair.agree(f"put {key} first")
    start = pair.revision() - 1
    pair.agree(f"""
        put {key} second
        put {key}x third
        del {key}
        put {key}y the-end
    """)
    command = f"{key} --prefix --rev={start} {flags}"
    ours, etcds = (shell.watch(command, last) for shell in pair)
    assert ours == etcds


def test_lease(pair, key):
    pair.agree(f"""
        lease grant 1000
        lease grant 2000
        lease grant 9000000001
        put {key}a 1 --lease=LEASE0
        put {key}b 2 --lease=LEASE0
        put {key}b 3 --lease=LEASE1
        get {key} --prefix -w fields
        lease timetolive LEASE0 --keys
        lease timetolive LEASE1
        lease timetolive 1234
        lease list
        lease keep-alive LEASE0 --once
        lease keep-alive 1234 --once
        lease revoke LEASE0
        lease revoke LEASE0
        get {key} --prefix
        lease revoke LEASE1
        lease list
        get {key} --prefix
    """)


def test_compaction(pair, key):
    pair.agree(f"""
        put {key} 1
        put {key} 2
        put {key} 3
    """)
    revision = pair.revision()
    pair.agree(f"""
        compaction {revision - 1}
        compaction {revision - 1}
        compaction {revision + 100}
        get {key} --rev={revision - 2}
        get {key} --rev={revision - 1}
        compaction --physical {revision}
        get {key} --rev={revision}
        watch {key} --rev={revision - 1}
    """)


@pytest.mark.parametrize("form", FORMATS[:3])
def test_endpoint_and_members(pair, form):
    pair.agree(f"""
        endpoint health -w {form}
        endpoint status -w {form}
        endpoint hashkv -w {form}
        member list -w {form}
        endpoint health --cluster -w {form}
    """)


def test_defrag_and_alarms(pair, key):
    pair.agree(f"""
        put {key} x
        defrag
        get {key}
        alarm list
        alarm disarm
    """)


def test_lock_runs_a_command_under_a_lock(pair, key):
    pair.agree(f"""
        lock {key} -- echo held
        get {key} --prefix --count-only -w fields
    """)
