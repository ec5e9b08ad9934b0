"""What grpc-go sees is the same on both transports."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.echo_server import EchoServer
from tests.support.servers import Binaries

pytestmark = pytest.mark.servers

CLIENT_SECONDS = 100
BUG = "call failed in a way that nobody foresaw"


def run(binary: Path, server: EchoServer, *arguments: str) -> str:
    """Run the client to its end and return what it saw."""
    done = subprocess.run(
        [binary, f"-target={server.target}", *arguments],
        capture_output=True,
        text=True,
        timeout=CLIENT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen_on_both(binaries: Binaries, directory: Path, *arguments: str, **server: Any) -> list[str]:
    """Return what the client saw, when it saw the same on both transports."""
    seen = []
    for transport in ("grpcio", "http2"):
        with EchoServer(transport, directory, **server) as echo:
            echo.complaints = (BUG, "Traceback")
            seen.append(run(binaries.grpc_client, echo, *arguments).splitlines())
    assert seen[1] == seen[0]
    return seen[0]


def test_every_case_is_answered_alike(binaries: Binaries, tmp_path: Path):
    lines = seen_on_both(binaries, tmp_path)
    assert len({line.split(":")[0] for line in lines}) == 19
    assert sum(" true OK" in line for line in lines if line.startswith("sizes")) == 18
    assert 'broken: Aborted "broken % off" ["asked"]' in lines
    assert "deadline: DeadlineExceeded" in lines
    assert 'upload: "10 messages, 20000000 bytes"' in lines


def test_a_unix_socket_serves_a_client_that_names_its_path(binaries: Binaries, tmp_path: Path):
    path = tmp_path / "echo.sock"
    lines = seen_on_both(
        binaries, tmp_path, f"-authority={path}", "unary", "mirror", listen=f"unix://{path}"
    )
    assert all("OK" in line for line in lines if line.startswith("unary"))


@pytest.mark.parametrize(
    "authority", ["localhost:m0", "#initially=[http://10.0.0.1:2379;x]", "a_b", "[::1]:0"]
)
def test_any_authority_is_served(binaries: Binaries, tmp_path: Path, authority: str):
    """etcd's own clients have sent such."""
    lines = seen_on_both(binaries, tmp_path, f"-authority={authority}", "peer")
    assert lines == ['peer: "None False" OK']


def test_tls_tells_the_handler_whose_certificate_it_is(binaries: Binaries, tmp_path: Path):
    files = Certificates(tmp_path)
    lines = seen_on_both(
        binaries,
        tmp_path,
        *files.client("alice"),
        "peer",
        "unary",
        "sizes",
        "parallel",
        listen="https://127.0.0.1:0",
        tls=files.server,
    )
    assert lines[0] == 'peer: "alice True" OK'
    assert all("OK" in line for line in lines)


@pytest.mark.parametrize("who", ["nobody", "a stranger"])
def test_tls_without_a_good_certificate_is_no_connection(
    binaries: Binaries, tmp_path: Path, who: str
):
    files = Certificates(tmp_path)
    arguments = files.client("mallory", of=Authority("stranger"))
    lines = seen_on_both(
        binaries,
        tmp_path,
        *(arguments[:1] if who == "nobody" else arguments),
        "peer",
        listen="https://127.0.0.1:0",
        tls=files.server,
    )
    assert lines == ['peer: "" Unavailable']


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_calls_under_way_end_well_while_the_server_drains(
    binaries: Binaries, tmp_path: Path, secure: bool
):
    """Not the oracle's part: its clients now and then hang on to a socket that nobody serves."""
    files = Certificates(tmp_path)
    where: dict[str, Any] = {"listen": "https://127.0.0.1:0", "tls": files.server}
    arguments = files.client("alice") if secure else []
    with EchoServer("http2", tmp_path, grace=60.0, **(where if secure else {})) as server:
        argv = [str(binaries.grpc_client), f"-target={server.target}", *arguments, "drain"]
        client = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert client.stdout is not None
        assert client.stdout.readline() == "under way\n"
        server.terminate()
        output, errors = client.communicate("\n", timeout=CLIENT_SECONDS)
        assert client.returncode == 0, errors
        assert server.wait() == 0
    stream = ["OK", "OK", "during", "half-close OK", '"half-closed"', "OK []"]
    expected = ["OK"] * 20 + ["new call: Unavailable"] + stream * 10
    assert [line.removeprefix("drain: ") for line in output.splitlines()] == expected


class Certificates:
    """Files of one authority, for a server and its clients."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = Authority("byre test")
        cert, key = self._authority.issue(directory, "server")
        self._ca = self._authority.write(directory)
        self.server = (cert, key, self._ca)

    def client(self, name: str, of: Authority | None = None) -> list[str]:
        """Return the arguments of a client with a certificate, by default of this authority."""
        cert, key = (of or self._authority).issue(self._directory, name)
        return [f"-ca={self._ca}", f"-cert={cert}", f"-key={key}"]
