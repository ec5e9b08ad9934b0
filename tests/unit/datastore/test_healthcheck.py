"""What a container's health check asks, and how it tells that something is wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner

from datastore.cli import main
from datastore.errors import NotReady
from datastore.healthcheck import check_ready
from tests.support.running import free_port


@contextmanager
def answering(status: int, text: str) -> Iterator[str]:
    """Serve one answer; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/readyz"
        finally:
            server.shutdown()
            thread.join()


def test_a_ready_server_is_ready():
    with answering(200, "ok") as url:
        check_ready(url)


def test_the_answer_of_a_server_that_is_not_ready_is_told():
    with answering(503, "the database\nis away") as url, pytest.raises(NotReady) as caught:
        check_ready(url)
    assert caught.value.reason == f"{url}: HTTP 503 the database is away"


def test_nobody_who_listens_is_told_in_words():
    url = f"http://127.0.0.1:{free_port()}/readyz"
    with pytest.raises(NotReady, match="connection refused"):
        check_ready(url)


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/", "readyz", "http://127.0.0.1:port/"])
def test_a_url_that_cannot_be_asked_is_refused(url):
    with pytest.raises(NotReady):
        check_ready(url)


def test_the_command_ends_with_0_or_with_1_and_the_reason():
    with answering(200, "ok") as url:
        assert CliRunner().invoke(main, ["health", url]).exit_code == 0
    with answering(500, "no") as url:
        result = CliRunner().invoke(main, ["health", url])
    assert (result.exit_code, result.output) == (1, f"{url}: HTTP 500 no\n")
