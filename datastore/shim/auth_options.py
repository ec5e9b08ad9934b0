"""--auth-token, --auth-token-ttl and --bcrypt-cost, in etcd's forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from datastore.shim.auth import simple
from datastore.shim.auth.passwords import DEFAULT_COST, HIGHEST_COST, LOWEST_COST
from datastore.shim.auth.simple import SimpleTokens
from datastore.shim.auth.tokens import NoTokens, Tokens

if TYPE_CHECKING:
    from datastore.shim.options import Parser

_JWT_KEYS: Final = ("sign-method", "pub-key", "priv-key", "ttl")
_FORMS: Final = "simple, or jwt,sign-method=METHOD,priv-key=FILE,pub-key=FILE,ttl=DURATION"


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """How identity is proved."""

    tokens: Callable[[], Tokens] = SimpleTokens
    """Makes what issues and knows tokens."""
    bcrypt_cost: int = DEFAULT_COST


def parse_auth(parser: Parser) -> AuthSettings:
    """Return what the options say; what is wrong with them is added to the parser's problems."""
    ttl = parser.number("auth-token-ttl", int(simple.DEFAULT_TTL_SECONDS), 0)
    cost = parser.number("bcrypt-cost", DEFAULT_COST, LOWEST_COST)
    if cost > HIGHEST_COST:
        parser.problems.append(f"--bcrypt-cost: {cost} is above {HIGHEST_COST}")
    text = parser.text("auth-token", "simple")
    kind, *pairs = text.split(",")
    if kind == "jwt":
        return AuthSettings(_parse_jwt(parser, pairs), cost)
    if kind not in {"simple", ""}:
        parser.problems.append(f"--auth-token: {kind!r} is no kind of token; give {_FORMS}")
    elif pairs:
        parser.problems.append(f"--auth-token: {kind or 'no token'} takes nothing after a comma")
    if not kind:
        return AuthSettings(NoTokens, cost)
    # As in etcd, 0 is the default.
    return AuthSettings(lambda: SimpleTokens(ttl or simple.DEFAULT_TTL_SECONDS), cost)


def _parse_jwt(parser: Parser, pairs: list[str]) -> Callable[[], Tokens]:
    """Return what makes JSON Web Tokens; their libraries are loaded for whoever wants them."""
    from datastore.shim.auth.jwt import (
        DEFAULT_TTL_SECONDS,
        SIGN_METHODS,
        BadKey,
        JwtTokens,
        load_keys,
    )
    from datastore.shim.options import to_seconds

    given = _to_dict(parser, pairs)
    method = given.get("sign-method", "")
    ttl = to_seconds(given["ttl"]) if given.get("ttl") else DEFAULT_TTL_SECONDS
    if ttl is None:
        parser.problems.append(f"--auth-token: ttl {given['ttl']!r} is no duration such as 10m")
    if method not in SIGN_METHODS:
        parser.problems.append(
            f"--auth-token: jwt needs sign-method, one of {', '.join(SIGN_METHODS)}"
        )
        return NoTokens
    private, public = (_read(parser, given.get(name, "")) for name in ("priv-key", "pub-key"))
    if private is None or public is None:
        return NoTokens
    try:
        keys = load_keys(method, private, public)
    except BadKey as error:
        parser.problems.append(f"--auth-token: {error}")
        return NoTokens
    return lambda: JwtTokens(method, keys, ttl or 0.0)


def _to_dict(parser: Parser, pairs: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in _JWT_KEYS:
            parser.problems.append(f"--auth-token: jwt takes {', '.join(_JWT_KEYS)}, not {name!r}")
        elif name in given:
            parser.problems.append(f"--auth-token: {name} is given twice")
        elif not value or "=" in value:
            parser.problems.append(f"--auth-token: {name} needs a value, as {name}=VALUE")
        given[name] = value
    return given


def _read(parser: Parser, path: str) -> bytes | None:
    """Return the bytes of a file, nothing where none was named, None where it is unreadable."""
    if not path:
        return b""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        parser.problems.append(f"--auth-token: cannot read {path}: {reason}")
        return None
