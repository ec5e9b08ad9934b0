"""Reads a range as bytes, in a process of its own: `python -m tests.support.bulk_reader`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import grpc

from datastore.etcdpb import rpc_pb2 as pb

SECONDS = 600.0


def start(target: str, method: str, key: bytes, end: bytes) -> subprocess.Popen[str]:
    """Begin to read; the process prints how many bytes came."""
    argv = [sys.executable, "-m", __name__, target, method, key.hex(), end.hex()]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def main(target: str, method: str, key: str, end: str) -> None:
    """Read it all once."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    request = pb.RangeRequest(key=bytes.fromhex(key), range_end=bytes.fromhex(end))
    with grpc.insecure_channel(target, options=options) as channel:
        read: Any = channel.unary_stream(f"/etcdserverpb.KV/{method}")
        parts = read(request.SerializeToString(), timeout=SECONDS)
        print(sum(len(part) for part in parts))


if __name__ == "__main__":
    main(*sys.argv[1:])
