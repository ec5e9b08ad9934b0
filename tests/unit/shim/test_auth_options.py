"""--auth-token, --auth-token-ttl and --bcrypt-cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from datastore.shim.auth.jwt import JwtTokens
from datastore.shim.auth.simple import SimpleTokens
from datastore.shim.auth.tokens import NoTokens
from datastore.shim.errors import AuthFailed
from datastore.shim.mvcc.auth import Auth
from datastore.shim.options import BadOptions, ServeOptions, parse

NEEDED = {"datastore": "memory://", "listen-client-urls": "unix:///tmp/x"}


def parsed(**texts: str) -> ServeOptions:
    return parse({**NEEDED, **{name.replace("_", "-"): text for name, text in texts.items()}}, {})


def problems(**texts: str) -> list[str]:
    with pytest.raises(BadOptions) as error:
        parsed(**texts)
    return error.value.problems


def test_tokens_are_simple_unless_said_otherwise():
    assert isinstance(parsed().auth.tokens(), SimpleTokens)
    assert isinstance(parsed(auth_token="simple").auth.tokens(), SimpleTokens)
    assert parsed().auth.bcrypt_cost == 10


def test_without_a_kind_nobody_gets_a_token():
    tokens = parsed(auth_token="").auth.tokens()
    assert isinstance(tokens, NoTokens)
    assert tokens.find(Auth(), "x") is None
    with pytest.raises(AuthFailed):
        tokens.issue(Auth(), "a", 1)


def test_json_web_tokens_need_a_method_and_a_key(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"of thirty-two bytes or of more..")
    given = f"jwt,sign-method=HS256,priv-key={secret},ttl=10m"
    assert isinstance(parsed(auth_token=given).auth.tokens(), JwtTokens)
    assert "thirty" not in repr(parsed(auth_token=given))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("none", "--auth-token: 'none' is no kind of token; give simple, or jwt,"),
        ("simple,ttl=5", "--auth-token: simple takes nothing after a comma"),
        ("jwt", "--auth-token: jwt needs sign-method, one of RS256, "),
        ("jwt,sign-method=none", "--auth-token: jwt needs sign-method, one of RS256, "),
        ("jwt,sign-method=HS256", "--auth-token: needs priv-key, a file with the secret"),
        ("jwt,sign-method=RS256,priv-key=/nowhere", "--auth-token: cannot read /nowhere: no such"),
        ("jwt,sign-method=RS256,x=y", "--auth-token: jwt takes sign-method, "),
        ("jwt,ttl=1m,ttl=1m", "--auth-token: ttl is given twice"),
        ("jwt,ttl", "--auth-token: ttl needs a value, as ttl=VALUE"),
        ("jwt,sign-method=HS256,ttl=x", "--auth-token: ttl 'x' is no duration such as 10m"),
    ],
)
def test_what_is_wrong_with_a_token_option_is_told(text, problem):
    assert any(found.startswith(problem) for found in problems(auth_token=text))


@pytest.mark.parametrize("cost", ["3", "32", "x"])
def test_a_cost_is_between_4_and_31(cost):
    assert problems(bcrypt_cost=cost)[0].startswith("--bcrypt-cost: ")


def test_a_token_lives_for_seconds():
    assert problems(auth_token_ttl="5m")[0].startswith("--auth-token-ttl: '5m' is not a whole")
    assert isinstance(parsed(auth_token_ttl="0").auth.tokens(), SimpleTokens)
