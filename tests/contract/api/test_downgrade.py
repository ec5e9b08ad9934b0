"""Maintenance/Downgrade: what is accepted, refused and remembered (contract 2.9, 2.12)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client, Code, Refusal, refused

VALIDATE, ENABLE, CANCEL = 0, 1, 2
BAD_FORMAT = Refusal(Code.INVALID_ARGUMENT, "etcdserver: wrong downgrade target version format")
BAD_TARGET = Refusal(Code.INVALID_ARGUMENT, "etcdserver: invalid downgrade target version")
UNDER_WAY = Refusal(
    Code.FAILED_PRECONDITION, "etcdserver: cluster has a downgrade job in progress"
)
UNKNOWN_METHOD = Refusal(Code.UNKNOWN, "etcdserver: unknown method")


async def downgrade(client: Client, action: int, version: str = "") -> pb.DowngradeResponse:
    request = pb.DowngradeRequest(action=action, version=version)  # type: ignore[arg-type]
    return await client.call("Maintenance/Downgrade", request, pb.DowngradeResponse)


async def job(client: Client) -> tuple[bool, str]:
    answer = await client.call("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
    return answer.downgradeInfo.enabled, answer.downgradeInfo.targetVersion


@pytest.fixture
async def clean(client: Client) -> AsyncIterator[Client]:
    """Connect, and cancel whatever job a case has left."""
    yield client
    await downgrade(client, CANCEL)


@pytest.mark.parametrize(
    "version", ["3.6", "3.6.0", "3.6.5", "3.06", "3.6.0-rc.1", "3.6.1+x", "3.6.0-+"]
)
async def test_one_minor_release_back_is_possible(clean, version):
    answer = await downgrade(clean, VALIDATE, version)
    assert answer.version == "3.7"
    assert answer.header.revision == await clean.revision()
    assert await job(clean) == (False, "")


@pytest.mark.parametrize("version", ["3.5", "3.7", "3.7.0", "3.8", "4.6", "2.6.0", "03.7"])
async def test_no_other_release_is(clean, version):
    for action in (VALIDATE, ENABLE):
        with refused(BAD_TARGET):
            await downgrade(clean, action, version)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "x",
        "3",
        "v3.6",
        "3.6.",
        "3.6.0.1",
        "3.6-rc",
        " 3.6",
        "3._6",
        "3.٦",
        "3.6.0-_",
    ],
)
async def test_what_is_not_a_version_is_told_from_a_wrong_one(clean, version):
    for action in (VALIDATE, ENABLE):
        with refused(BAD_FORMAT):
            await downgrade(clean, action, version)


async def test_a_job_is_shown_and_the_only_one_until_it_is_cancelled(clean):
    assert (await downgrade(clean, ENABLE, "3.6.9")).version == "3.7"
    assert await job(clean) == (True, "3.6.0")
    for action in (VALIDATE, ENABLE):
        with refused(UNDER_WAY):
            await downgrade(clean, action, "3.6")
        with refused(BAD_TARGET):
            await downgrade(clean, action, "3.5")
    assert (await downgrade(clean, CANCEL)).version == "3.7"
    assert await job(clean) == (False, "")
    await downgrade(clean, VALIDATE, "3.6")


async def test_cancelling_without_a_job_is_no_error(clean):
    assert (await downgrade(clean, CANCEL, "nonsense")).version == "3.7"


async def test_an_action_that_nobody_knows_is_refused(clean):
    with refused(UNKNOWN_METHOD):
        await clean.call("Maintenance/Downgrade", b"\x08\x07\x12\x033.6", pb.DowngradeResponse)
