"""Simple tokens; how servers share them is in tests/fault/test_auth_servers_in_memory.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.shim.auth.simple import SimpleTokens
from datastore.shim.errors import AuthFailed
from datastore.shim.mvcc.auth import Auth, Identity, User

STATE = Auth(
    enabled=True, revision=9, secret=b"s" * 32, users={"a": User(b"x"), "é b": User(b"y")}
)


class Clocks:
    """A wall clock and a stopwatch that go when they are told to."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.elapsed = 5.0

    def go(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def tokens(clocks: Clocks) -> SimpleTokens:
    return SimpleTokens(10, lambda: clocks.wall, lambda: clocks.elapsed)


@pytest.mark.parametrize("name", ["a", "é b"])
def test_a_token_stands_for_its_user_as_of_now(tokens, name):
    token = tokens.issue(STATE, name, 7)
    assert token.isascii()
    assert tokens.find(STATE, token) == Identity(name, 9)
    assert tokens.find(replace(STATE, revision=10), token) == Identity(name, 10)


def test_a_token_says_how_far_its_issuer_had_come(tokens):
    assert tokens.position(tokens.issue(STATE, "a", 7)) == 7
    assert tokens.position("anything") == 0


def test_nobody_gets_a_token_who_is_not_there(tokens):
    with pytest.raises(AuthFailed):
        tokens.issue(STATE, "b", 7)


def test_a_token_lives_on_while_it_is_used(tokens, clocks):
    token = tokens.issue(STATE, "a", 7)
    for _ in range(5):
        clocks.go(9)
        assert tokens.find(STATE, token)
    clocks.go(10)
    assert tokens.find(STATE, token) is None
    assert not tokens._used


def test_what_was_not_used_is_forgotten_and_the_rest_kept(tokens, clocks):
    first, second = (tokens.issue(STATE, "a", 7) for _ in range(2))
    for token in (first, second):
        assert tokens.find(STATE, token)
    clocks.go(9)
    assert tokens.find(STATE, first)
    clocks.go(2)
    assert tokens.find(STATE, second) is None
    assert tokens.find(STATE, first)


def test_setting_the_wall_clock_ends_no_token_that_is_in_use(tokens, clocks):
    token = tokens.issue(STATE, "a", 7)
    assert tokens.find(STATE, token)
    clocks.wall += 100_000
    assert tokens.find(STATE, token)


@pytest.mark.parametrize(
    "state",
    [
        replace(STATE, secret=b"t" * 32),
        replace(STATE, secret=b""),
        replace(STATE, users={}),
        replace(STATE, users={"a": User(b"changed")}),
        replace(STATE, users={"a": User(b"")}),
    ],
)
def test_a_token_ends_with_what_it_is_signed_for(tokens, state):
    token = tokens.issue(STATE, "a", 7)
    assert tokens.find(STATE, token)
    assert tokens.find(state, token) is None


@given(st.data())
def test_no_change_of_a_token_makes_another(data):
    tokens = SimpleTokens(10, lambda: 1.0, lambda: 1.0)
    token = tokens.issue(STATE, "a", 7)
    place = data.draw(st.integers(0, len(token) - 1))
    forged = token[:place] + data.draw(st.characters()) + token[place + 1 :]
    found = tokens.find(STATE, forged)
    # The last digit of base64 has bits that nothing is made of.
    assert found is None or tokens._used.keys() == {forged} or forged == token


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: raw.hex() + ".1"))
def test_whatever_is_no_token_is_none(text):
    tokens = SimpleTokens(10)
    assert tokens.find(STATE, text) is None
    assert tokens.position(text) >= 0
