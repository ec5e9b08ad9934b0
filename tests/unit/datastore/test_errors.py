from __future__ import annotations

from pathlib import Path

import pytest

from datastore.errors import (
    CertificateError,
    ConfigError,
    DatastoreError,
    NotReady,
    Problem,
    UnknownKind,
    UnusablePath,
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotReady("no answer", "wait"), "no answer; wait"),
        (NotReady("no answer"), "no answer"),
        (UnusablePath(Path("/a"), "read-only"), "cannot use /a: read-only"),
        (CertificateError(Path("/a"), "is missing"), "/a: is missing"),
        (
            UnknownKind("x", ["a", "b"]),
            "no datastore for data sources that begin with x://; known: a, b",
        ),
        (
            ConfigError("f", [Problem("a.b", "1", "must be 2", "c")]),
            "f: one problem in the configuration\n  a.b: must be 2 (found 1); did you mean c?",
        ),
    ],
)
def test_messages_are_for_people(error: DatastoreError, text: str) -> None:
    assert str(error) == text
