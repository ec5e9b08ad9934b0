"""A process as a value: what to run, how to know that it is ready, how to stop it.

`datastore` only describes processes; `supervisor/child.py` is the one place that spawns.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class RestartPolicy(StrEnum):
    """What to do when a process ends by itself."""

    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """GET `url`; ready when the answer is 200. `unix` is the path of a socket to go through."""

    url: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    timeout_seconds: float = 2.0
    unix: Path | None = None


@dataclass(frozen=True, slots=True)
class EtcdProbe:
    """A linearizable read through the etcd API of an endpoint URL; ready when it is answered."""

    url: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    timeout_seconds: float = 2.0


Probe = HttpProbe | EtcdProbe


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to run.

    `environment` is the child's whole environment besides PATH, HOME and TZ: nothing else is
    inherited. `secrets` are added to it, and are shown nowhere: not in repr, plan or status.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    user: str | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None
    ready_seconds: float = 60.0
    """How long to wait for readiness before the start counts as failed."""
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 10.0
    """From the stop signal to SIGKILL of the process group."""
    restart: RestartPolicy = RestartPolicy.ALWAYS
