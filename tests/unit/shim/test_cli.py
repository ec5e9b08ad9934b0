"""The command as users run it: exit codes, clear words, no traceback."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from datastore.etcdpb import rpc_pb2, rpc_pb2_grpc


@asynccontextmanager
async def serve(*arguments: str, environ: dict[str, str] | None = None) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "datastore", "serve", *arguments,
        stdout=PIPE, stderr=PIPE, env={**os.environ, **(environ or {})},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until_serving(process: Process) -> None:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        if b" serving " in line:
            return
    raise AssertionError("the server ended before it served")


async def refused(*arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str]:
    async with serve(*arguments, environ=environ) as process:
        _, errors = await process.communicate()
    text = errors.decode()
    assert "Traceback" not in text
    assert process.returncode is not None
    return process.returncode, text


def at(directory: Path) -> tuple[str, ...]:
    return (
        f"--datastore=sqlite:///{directory}/state.db",
        f"--listen-client-urls=unix://{directory}/grpc.sock",
    )


async def test_what_was_acknowledged_survives_sigkill_and_sigterm_ends_with_0(
    tmp_path: Path,
) -> None:
    async with serve(*at(tmp_path)) as process:
        await until_serving(process)
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/grpc.sock") as channel:
            await rpc_pb2_grpc.KVStub(channel).Put(rpc_pb2.PutRequest(key=b"k", value=b"v"))
        process.kill()
        await process.wait()
    async with serve(*at(tmp_path)) as process:
        await until_serving(process)
        async with grpc.aio.insecure_channel(f"unix:{tmp_path}/grpc.sock") as channel:
            got = await rpc_pb2_grpc.KVStub(channel).Range(rpc_pb2.RangeRequest(key=b"k"))
        assert [kv.value for kv in got.kvs] == [b"v"]
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert process.returncode == 0
    assert "stopped" in errors.decode()
    assert not (tmp_path / "grpc.sock").exists()


async def test_a_second_server_on_the_same_file_is_refused(tmp_path: Path) -> None:
    async with serve(*at(tmp_path)) as first:
        await until_serving(first)
        code, text = await refused(
            *at(tmp_path)[:1], f"--listen-client-urls=unix://{tmp_path}/second.sock"
        )
    assert code == 3
    assert "in use" in text


async def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(ignore, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        code, text = await refused(
            *at(tmp_path)[:1], f"--listen-client-urls=http://127.0.0.1:{port}"
        )
    assert code == 4
    assert f"cannot listen on http://127.0.0.1:{port}: address already in use" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--max-txn-ops=x", "--log-level=y"], 2, ["max-txn-ops", "log-level", "no datastore"]),
        (["--datastore=sqlite:////nowhere/at/all/x.db"], 3, ["/nowhere/at/all"]),
        (["--datastore=oracle://x"], 3, ["sqlite://"]),
        (["--datastore=postgresql://u:secret@h/db"], 2, ["--datastore-file"]),
        (["--nosuch=1"], 2, ["nosuch"]),
    ],
    ids=["all at once", "no directory", "no such scheme", "password", "unknown option"],
)
async def test_what_cannot_be_served_is_told(
    arguments: list[str], code: int, words: list[str], tmp_path: Path
) -> None:
    returned, text = await refused(*arguments, environ={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert returned == code
    assert all(word in text for word in words)
    assert "secret" not in text
