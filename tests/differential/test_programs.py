"""The same random program on a real etcd and on the shim: every answer and event is equal."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import Client
from tests.support.differential import Side, same_told, side
from tests.support.pair import Pair
from tests.support.programs import PRELUDE, placed, requests
from tests.support.soaking import for_long


async def level(clients: tuple[Client, Client]) -> int:
    """Bring both servers to one revision, without keys, leases and history; return it."""
    for client in clients:
        await client.delete(b"\0", b"\0")
        for lease in await client.leases():
            await client.revoke(lease)
    start = max([await client.revision() for client in clients]) + 2
    for client in clients:
        while await client.revision() < start - 1:
            await client.put(b"level")
        await client.delete(b"level")
        await client.compact(start)
    return start


async def compare(ours: Client, etcds: Client, program: list[Message]) -> None:
    """Run a program on both and compare whatever comes back."""
    start = await level((ours, etcds))
    async with side(ours) as mine, side(etcds) as other:
        for drawn in (*PRELUDE, *program):
            request = placed(drawn, start)
            note(f"{type(request).__name__}: {str(drawn).strip()}")
            await agree(mine, other, request)
        streams = [await one.finish(start) for one in (mine, other)]
    for said, etcds_said in zip(*streams, strict=True):
        assert same_told(said, etcds_said), f"events: {said}\nof etcd: {etcds_said}"


async def agree(ours: Side, etcds: Side, request: Message) -> None:
    """Send one request to both."""
    outcomes = [await one.answer(request) for one in (ours, etcds)]
    if isinstance(outcomes[0], list) and isinstance(outcomes[1], list):
        assert same_told(outcomes[0], outcomes[1]), f"{outcomes[0]}\nof etcd: {outcomes[1]}"
        return
    assert outcomes[0] == outcomes[1]
    # With a sort target etcd 3.7.3 sorts inside each chunk, and loses and repeats keys.
    if isinstance(request, pb.RangeRequest) and not request.sort_target:
        streams = [await one.streamed(request) for one in (ours, etcds)]
        assert streams[0] == streams[1]


def run(pair: Pair, examples: int, steps: int, phases: Sequence[Phase]) -> None:
    @settings(
        phases=phases,
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(requests, min_size=steps // 3, max_size=steps))
    def programs(program: list[Message]) -> None:
        pair.run(compare, program)

    programs()


def test_short_programs_have_the_same_answers(pair):
    run(pair, examples=60, steps=25, phases=[Phase.generate])  # shrinking takes minutes


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_long_programs_have_the_same_answers(pair):
    phases = [Phase.generate, Phase.shrink]
    for_long(lambda: run(pair, examples=50, steps=60, phases=phases))
