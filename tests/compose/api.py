"""The API server as one thread asks it, with the administrator's certificate."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

import yaml

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


class Answer(NamedTuple):
    """A status, and the object that came with it."""

    status: int
    content: Any


class NoAnswer(Exception):
    """The connection failed, or nothing came in time: what was asked may have been done."""


class Api:
    """One connection, made anew after each failure; for one thread."""

    def __init__(self, kubeconfig: Path, timeout_seconds: float = 15.0) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=_decode(cluster, "certificate-authority-data"))
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
            pair.write(_decode(user, "client-certificate-data"))
            pair.write(_decode(user, "client-key-data"))
            pair.flush()
            context.load_cert_chain(pair.name)
        parts = urlsplit(cluster["server"])
        assert parts.hostname is not None
        self._connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=timeout_seconds, context=context
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def create_configmap(
        self, metadata: Mapping[str, Any], data: Mapping[str, str] | None = None
    ) -> Answer:
        """Create one object; raises NoAnswer."""
        return self._ask("POST", CONFIGMAPS, {"metadata": metadata, "data": data or {}})

    def get(self, path: str, **parameters: str | int) -> Answer:
        """Read an object or a list; raises NoAnswer."""
        return self._ask("GET", f"{path}?{urlencode(parameters)}", None)

    def _ask(self, method: str, target: str, body: object) -> Answer:
        text = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, target, text, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            return Answer(answer.status, json.loads(answer.read()))
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise NoAnswer(f"{method} {target}: {error}") from error


def is_written(api: Api, metadata: Mapping[str, Any]) -> bool:
    """Say whether a ConfigMap was created, and acknowledged."""
    with contextlib.suppress(NoAnswer):
        return api.create_configmap(metadata, {"n": "1"}).status == 201
    return False


def _decode(section: Mapping[str, str], name: str) -> str:
    return base64.b64decode(section[name]).decode()
