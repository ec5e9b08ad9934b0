"""Sizes (contract 2.13; traps T40, T50, T61)."""

from __future__ import annotations

import grpc.aio
import pytest

from tests.support.client import TOO_LARGE, Code, put_op, refused

LIMIT = 3 << 19
"""--max-request-bytes."""


async def test_a_request_just_below_the_limit_is_served(client, prefix):
    await client.put(prefix, bytes(LIMIT - 500))
    assert len((await client.get(prefix)).kvs[0].value) == LIMIT - 500


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, (2 << 20) - 200])
async def test_a_larger_put_is_refused_with_etcds_words(client, prefix, size):
    """T40, T61."""
    with refused(TOO_LARGE):
        await client.put(prefix, bytes(size))
    assert (await client.get(prefix)).count == 0


async def test_the_limit_is_over_a_whole_transaction(client, prefix):
    """T61."""
    with refused(TOO_LARGE):
        await client.txn(success=[put_op(prefix + b"%d" % n, bytes(LIMIT // 3)) for n in range(3)])
    assert (await client.list(prefix)).count == 0


async def test_the_connection_survives_a_refused_size(client, prefix):
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError):
            await client.put(prefix, bytes(3 << 20))
    await client.put(prefix, b"small")


async def test_beyond_the_receive_limit_grpc_itself_refuses(client, prefix):
    """T61: kube-apiserver looks for these words."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.put(prefix, bytes(2 << 20))
    assert error.value.code() == Code.RESOURCE_EXHAUSTED
    assert "larger than max" in str(error.value.details())


async def test_a_read_request_is_not_bound_by_the_write_limit(client, prefix):
    await client.get(prefix + bytes(LIMIT))
