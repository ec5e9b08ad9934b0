"""The header grpc-timeout."""

from __future__ import annotations

import pytest

from datastore.shim.transport.http2.timeout import BadTimeout, parse


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("4m", 0.004),
        ("5000000u", 5),
        ("6n", 6e-9),
        ("0S", 0),
        ("99999999H", 99_999_999 * 3600),
    ],
)
def test_digits_and_a_unit_are_seconds(text: str, seconds: float) -> None:
    assert parse(text.encode()) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "S", "1", "1s", "1h", "-1S", "1.5S", "123456789S", " 1S", "1S ", "+1S", "1_0S"],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadTimeout):
        parse(text.encode())
