"""Statuses and metadata as header blocks."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.transport.api import Code, RpcError
from datastore.shim.transport.http2 import status
from datastore.shim.transport.http2.hpack import Decoder


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        ("etcdserver: key is not provided", b"etcdserver: key is not provided"),
        ("100%", b"100%25"),
        ("é", b"%C3%A9"),
        ("a\nb\x7f", b"a%0Ab%7F"),
        ("", b""),
    ],
)
def test_a_message_is_escaped_where_it_has_to_be(message: str, encoded: bytes) -> None:
    assert status.percent_encode(message) == encoded


@given(st.text())
def test_any_message_is_printable_ascii_and_comes_back(message: str) -> None:
    encoded = status.percent_encode(message)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert unquote(encoded.decode()) == message


def test_trailers_carry_code_message_and_metadata() -> None:
    error = RpcError(Code.OUT_OF_RANGE, "old", [("reason", "compacted"), ("id-bin", b"\0\xff")])
    assert Decoder().decode(status.trailers(error, [("Kind", "late")])) == [
        (b"grpc-status", b"11"),
        (b"grpc-message", b"old"),
        (b"kind", b"late"),
        (b"reason", b"compacted"),
        (b"id-bin", b"AP8"),
    ]


def test_success_has_no_message() -> None:
    assert Decoder().decode(status.trailers(None, ())) == [(b"grpc-status", b"0")]
    assert Decoder().decode(status.RESPONSE) == [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
    ]
