"""Asks a running byre how it is doing."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from supervisor.errors import NotRunning
from supervisor.place import socket_path


def ask_status(run_dir: Path) -> Mapping[str, Any]:
    """Return what a running byre says; raises NotRunning."""
    path = socket_path(run_dir)
    try:
        # Asked before httpx is: it does not close a socket that cannot be connected.
        with socket.socket(socket.AF_UNIX) as attempt:
            attempt.connect(str(path))
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, timeout=10) as client:
            content = client.get("http://byre/status").raise_for_status().json()
    except PermissionError as error:
        raise NotRunning(f"cannot open {path}: permission denied; try as root") from error
    except (OSError, httpx.HTTPError, json.JSONDecodeError) as error:
        raise NotRunning(
            f"no byre answers at {path}; start one with `byre controller`, or name its data "
            "directory with --data-dir"
        ) from error
    assert isinstance(content, dict)
    return content
