"""Passwords: hashed as Go does, in a bounded lane of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import bcrypt
import pytest

from datastore.shim.auth.passwords import MOST_WAITING, Passwords, PasswordTooLong
from datastore.shim.errors import TooManyRequests
from datastore.shim.lanes import thread_lane


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    found = Passwords(thread_lane("passwords"), 4)
    yield found
    found.close()


async def test_a_password_matches_its_hash_and_no_other(passwords):
    hashed = await passwords.hash("secret")
    assert hashed.startswith(b"$2a$04$")
    assert await passwords.matches("secret", hashed)
    assert not await passwords.matches("Secret", hashed)


@pytest.mark.parametrize("hashed", [b"", b"no hash", b"$2a$04$short", b"\xff\xfe"])
async def test_what_is_no_hash_matches_nothing(passwords, hashed):
    assert not await passwords.matches("", hashed)


async def test_hashes_of_other_writers_are_understood(passwords):
    for prefix in (b"2a", b"2b"):
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4, prefix))
        assert await passwords.matches("secret", hashed)


async def test_a_new_password_has_72_bytes_at_most_and_more_are_not_compared(passwords):
    hashed = await passwords.hash("x" * 72)
    with pytest.raises(PasswordTooLong):
        await passwords.hash("x" * 73)
    assert await passwords.matches("x" * 100, hashed)


async def test_no_more_than_so_many_wait_and_those_before_are_served(passwords):
    hashed = await passwords.hash("secret")
    waiting = [
        asyncio.create_task(passwords.matches("secret", hashed)) for _ in range(MOST_WAITING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests):
        await passwords.matches("secret", hashed)
    with pytest.raises(TooManyRequests):
        await passwords.hash("secret")
    assert all(await asyncio.gather(*waiting))
    assert await passwords.matches("secret", hashed)
