from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from supervisor.fetch import FetchError, fetch
from supervisor.releases import Program, program, target

CONTENT = b"#!/bin/sh\necho program\n" * 1000


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archive(member: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
    return buffer.getvalue()


def site(files: dict[str, bytes]) -> httpx.MockTransport:
    """Serve files by URL; what begins with -> is where it moved."""

    def serve(request: httpx.Request) -> httpx.Response:
        content = files.get(str(request.url))
        if content is None:
            return httpx.Response(404)
        if content.startswith(b"->"):
            return httpx.Response(302, headers={"location": content[2:].decode()})
        return httpx.Response(200, content=content)

    return httpx.MockTransport(serve)


def get(wanted: Program, files: dict[str, bytes], directory: Path) -> bytes:
    seen: list[int] = []
    found = fetch(wanted, directory, lambda done, _: seen.append(done), site(files))
    assert seen[-1] > 0
    assert found.name == wanted.name
    assert [path.name for path in directory.iterdir()] == [wanted.name]
    return found.read_bytes()


def test_kubernetes_publishes_the_bare_digest_and_redirects(tmp_path: Path) -> None:
    wanted = program("kube-apiserver")
    files = {
        wanted.download.url: b"->https://cdn.example/x",
        "https://cdn.example/x": CONTENT,
        f"{wanted.download.url}.sha256": digest(CONTENT).encode(),
    }
    assert get(wanted, files, tmp_path) == CONTENT


def test_etcd_is_in_an_archive_with_its_digest_among_others(tmp_path: Path) -> None:
    wanted = program("etcd")
    packed = archive(wanted.download.member)
    name = wanted.download.url.rpartition("/")[2]
    sums = f"{digest(b'')}  etcd-v3.7.3-plan9.tar.gz\n{digest(packed)}  {name}\n"
    files = {wanted.download.url: packed, wanted.download.digest_url: sums.encode()}
    assert get(wanted, files, tmp_path) == CONTENT


def test_kine_has_a_list_of_digests(tmp_path: Path) -> None:
    wanted = program("kine")
    name = wanted.download.url.rpartition("/")[2]
    sums = f"{digest(CONTENT)}  dist/artifacts/{name}\n"
    files = {wanted.download.url: CONTENT, wanted.download.digest_url: sums.encode()}
    assert get(wanted, files, tmp_path) == CONTENT


def test_a_digest_pinned_here_needs_no_published_one(tmp_path: Path) -> None:
    wanted = replace(program("kine"), sha256={target(): digest(CONTENT)})
    assert get(wanted, {wanted.download.url: CONTENT}, tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("digests", "told"),
    [
        (digest(b"another").encode(), "its publisher says"),
        (b"<html>login</html>", "holds no SHA-256 of kine"),
        (f"{digest(CONTENT)}  another-file".encode(), "holds no SHA-256 of kine"),
        (None, "answers HTTP 404"),
    ],
)
def test_what_cannot_be_verified_is_refused(
    tmp_path: Path, digests: bytes | None, told: str
) -> None:
    wanted = program("kine")
    files = {wanted.download.url: CONTENT}
    if digests is not None:
        files[wanted.download.digest_url] = digests
    with pytest.raises(FetchError, match=told):
        fetch(wanted, tmp_path, lambda *_: None, site(files))


def test_an_archive_without_the_program_is_refused(tmp_path: Path) -> None:
    packed = archive("etcd-v3.7.3/README")
    wanted = replace(program("etcd"), sha256={target(): digest(packed)})
    with pytest.raises(FetchError, match="the release archive has no etcd-v3"):
        fetch(wanted, tmp_path, lambda *_: None, site({wanted.download.url: packed}))


def test_a_host_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno -2] Name or service not known", request=request)

    with pytest.raises(FetchError, match=r"^dl\.k8s\.io cannot be reached \(name or") as caught:
        fetch(program("kubectl"), tmp_path, lambda *_: None, httpx.MockTransport(fail))
    assert caught.value.host == "dl.k8s.io"
