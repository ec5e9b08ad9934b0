"""Shows a plan: as text for people, as JSON for programs, never with a secret in it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from datastore.launch import ProcessSpec
from supervisor.plan import Plan


def plan_to_text(plan: Plan) -> str:
    """Return a plan as shell-like commands, one flag a line."""
    datastore = plan.datastore
    lines = [
        f"# datastore: {datastore.kind} at {', '.join(datastore.endpoint.urls)}",
        f"# API server: {plan.api_url}",
    ]
    for spec in plan.processes:
        lines += ["", f"# {spec.name}"]
        if spec.user:
            lines.append(f"# as user {spec.user}")
        if spec.cwd:
            lines.append(f"# in {spec.cwd}")
        lines += [f"{name}={shlex.quote(value)} \\" for name, value in spec.environment.items()]
        lines += [f"{name}=(secret) \\" for name in spec.secrets]
        lines.append(" \\\n    ".join(shlex.quote(argument) for argument in spec.argv))
    return "\n".join(lines)


def plan_to_json(plan: Plan) -> str:
    """Return a plan as JSON."""
    content = {
        "datastore": {
            "kind": plan.datastore.kind,
            "endpoint": list(plan.datastore.endpoint.urls),
        },
        "api": plan.api_url,
        "processes": [_process(spec) for spec in plan.processes],
    }
    return json.dumps(content, indent=2)


def _process(spec: ProcessSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "argv": list(spec.argv),
        "environment": dict(spec.environment),
        "secrets": sorted(spec.secrets),
        "cwd": str(spec.cwd) if spec.cwd else None,
        "user": spec.user,
        "ready_seconds": spec.ready_seconds,
        "grace_seconds": spec.grace_seconds,
        "restart": spec.restart,
    }
