from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from pathlib import Path

import httpx
import pytest

from supervisor import toolchain
from supervisor.releases import target
from supervisor.toolchain import GO_VERSION, NoGo, find_go, obtain_go

NAME = f"go{GO_VERSION}.{target()}"
PREFIX = f"golang.org/toolchain@v0.0.1-{NAME}/"
FILES = {f"{PREFIX}bin/go": b"go", f"{PREFIX}pkg/tool/x/compile": b"c", f"{PREFIX}src/a.go": b"a"}


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def module_sum(files: dict[str, bytes]) -> str:
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    total = hashlib.sha256("".join(lines).encode()).digest()
    return f"h1:{base64.b64encode(total).decode()}"


def proxy(content: bytes) -> httpx.MockTransport:
    def serve(request: httpx.Request) -> httpx.Response:
        expected = f"https://proxy.example/golang.org/toolchain/@v/v0.0.1-{NAME}.zip"
        return httpx.Response(200 if str(request.url) == expected else 404, content=content)

    return httpx.MockTransport(serve)


@pytest.fixture(autouse=True)
def _no_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_USUAL_PLACES", ())
    monkeypatch.setattr(toolchain, "_SUMS", {target(): module_sum(FILES)})


def go_in(directory: Path, version: str) -> str:
    go = directory / "go"
    go.write_text(f"#!/bin/sh\necho go version go{version} linux/amd64\n")
    go.chmod(0o755)
    return str(go)


@pytest.mark.parametrize(("version", "fits"), [("1.19.8", False), ("1.21.0", True), ("2.0", True)])
def test_the_user_s_go_is_taken_if_it_can_update_itself(
    tmp_path: Path, version: str, fits: bool
) -> None:
    go = go_in(tmp_path, version)
    assert find_go({"PATH": str(tmp_path)}) == (go if fits else None)


def test_without_go_one_is_fetched_from_a_module_proxy(tmp_path: Path) -> None:
    environ = {"PATH": "", "GOPROXY": "off,https://other.example|https://proxy.example/,direct"}
    go = Path(obtain_go(environ, tmp_path, lambda *_: None, proxy(packed(FILES))))
    assert go == tmp_path / NAME / "bin/go"
    assert go.read_bytes() == b"go"
    files = sorted(path for path in go.parents[1].rglob("*") if path.is_file())
    modes = [path.stat().st_mode & 0o111 for path in files]
    assert modes == [0o111, 0o111, 0]
    assert obtain_go(environ, tmp_path, lambda *_: None, proxy(b"")) == str(go)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (packed({**FILES, f"{PREFIX}bin/go": b"evil"}), "the fetched Go has the sum h1:"),
        (packed({"../x": b""}), "has no place in a Go toolchain"),
        (packed({f"{PREFIX}../../x": b""}), "has no place in a Go toolchain"),
        (b"<html>", "is no archive"),
    ],
    # An archive tells the time; workers have to agree on names.
    ids=["another sum", "outside", "outside by its own folder", "no archive"],
)
def test_another_go_is_refused_and_nothing_is_left(
    tmp_path: Path, content: bytes, told: str
) -> None:
    environ = {"PATH": "", "GOPROXY": "https://proxy.example"}
    with pytest.raises(NoGo, match=told):
        obtain_go(environ, tmp_path, lambda *_: None, proxy(content))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("goproxy", "told"),
    [("off", "GOPROXY names no proxy"), ("https://other.example", "404 not found")],
)
def test_without_a_proxy_the_reason_is_told(tmp_path: Path, goproxy: str, told: str) -> None:
    environ = {"PATH": "", "GOPROXY": goproxy}
    with pytest.raises(NoGo, match=f"Go is not installed, and its module cannot .*{told}"):
        obtain_go(environ, tmp_path, lambda *_: None, proxy(b""))
