"""What a KV.Txn compares (contract 2.5; traps T4, T8, T17, T18)."""

from __future__ import annotations

from typing import Any

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import (
    prefix_end,
    when,
)

UNKNOWN_RESULT: Any = 9


async def holds(client, *compare) -> bool:
    return (await client.txn(compare)).succeeded


@pytest.mark.parametrize("target", ["version", "create_revision", "mod_revision", "lease"])
@pytest.mark.parametrize(
    ("result", "low", "same", "high"),
    [
        ("=", False, True, False),
        ("!=", True, False, True),
        (">", True, False, False),
        ("<", False, False, True),
    ],
)
async def test_numbers_of_a_key_are_compared(client, prefix, target, result, low, same, high):
    lease = (await client.grant(1000)).ID
    await client.put(prefix)
    await client.put(prefix, lease=lease)
    is_now = getattr((await client.get(prefix)).kvs[0], target)
    for number, expected in ((is_now - 1, low), (is_now, same), (is_now + 1, high)):
        fields: Any = {target: number}
        assert await holds(client, when(prefix, result, **fields)) is expected


@pytest.mark.parametrize(
    ("result", "low", "same", "high"),
    [
        ("=", False, True, False),
        ("!=", True, False, True),
        (">", True, False, False),
        ("<", False, False, True),
    ],
)
async def test_values_are_compared_as_bytes(client, prefix, result, low, same, high):
    await client.put(prefix, b"m\xff")
    for value, expected in ((b"m\x00z", low), (b"m\xff", same), (b"m\xff\x00", high)):
        assert await holds(client, when(prefix, result, value=value)) is expected


@pytest.mark.parametrize("target", ["version", "create_revision", "mod_revision", "lease"])
async def test_the_numbers_of_a_missing_key_are_zero(client, prefix, target):
    """T17: mod revision 0 is Kubernetes' create."""
    zero: Any = {target: 0}
    assert await holds(client, when(prefix, **zero))
    assert not await holds(client, when(prefix, ">", **zero))


@pytest.mark.parametrize("result", ["=", "!=", "<", ">"])
async def test_the_value_of_a_missing_key_compares_false(client, prefix, result):
    """T17."""
    assert not await holds(client, when(prefix, result, value=b""))


async def test_an_unset_target_union_means_zero(client, prefix):
    assert await holds(client, pb.Compare(key=prefix, target=pb.Compare.VERSION))
    await client.put(prefix)
    assert not await holds(client, pb.Compare(key=prefix, target=pb.Compare.VERSION))
    assert await holds(client, pb.Compare(key=prefix, target=pb.Compare.VALUE))


async def test_an_unknown_result_is_true(client, prefix):
    assert await holds(client, pb.Compare(key=prefix, result=UNKNOWN_RESULT, version=7))


async def test_every_key_of_a_range_must_satisfy_a_range_compare(client, prefix):
    end = prefix_end(prefix)
    await client.put(prefix + b"a")
    await client.put(prefix + b"b")
    assert await holds(client, when(prefix, end=end, version=1))
    await client.put(prefix + b"b")
    assert not await holds(client, when(prefix, end=end, version=1))
    assert await holds(client, when(prefix, ">", end=end, version=0))


async def test_an_empty_range_compares_like_a_missing_key(client, prefix):
    """T17."""
    end = prefix_end(prefix)
    assert await holds(client, when(prefix, end=end, mod_revision=0))
    assert not await holds(client, when(prefix, "!=", end=end, value=b"x"))


async def test_all_compares_must_hold(client, prefix):
    await client.put(prefix)
    assert await holds(client, when(prefix, version=1), when(prefix, value=b""))
    assert not await holds(client, when(prefix, version=1), when(prefix, value=b"x"))
