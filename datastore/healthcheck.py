"""Ask a server's /readyz from a health check that runs every few seconds: quick to start."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

from datastore.errors import NotReady

_LONGEST_BODY = 500


def check_ready(url: str, timeout_seconds: float = 5.0) -> None:
    """Return when `url`, of plain HTTP, answers 200; raises NotReady.

    `datastore.probe` asks more kinds of servers, and takes half a second of a processor to begin.
    """
    parts = urlsplit(url)
    try:
        if parts.scheme != "http" or not parts.hostname:
            raise NotReady(f"{url}: expected a URL such as http://127.0.0.1:2381/readyz")
        connection = http.client.HTTPConnection(
            parts.hostname, parts.port, timeout=timeout_seconds
        )
        try:
            connection.request("GET", parts.path or "/")
            with connection.getresponse() as answer:
                body = answer.read(_LONGEST_BODY)
        finally:
            connection.close()
    except TimeoutError:
        raise NotReady(f"{url}: no answer within {timeout_seconds:g} s") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NotReady(f"{url}: {reason.lower()}") from error
    if answer.status != http.client.OK:
        text = " ".join(body.decode(errors="replace").split())
        raise NotReady(f"{url}: HTTP {answer.status} {text}".rstrip())
