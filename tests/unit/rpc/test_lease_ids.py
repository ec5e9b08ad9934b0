"""The ids that a server chooses for leases."""

from __future__ import annotations

import pytest

from datastore.shim.mvcc.leases import Lessor
from datastore.shim.rpc.lease import LeaseIds

DAY = 86_400.0
MEMBERS = [1, 0x7FFF, 0xFFFF_FFFF_FFFF_FFFF, 0x1234_5678_9ABC_8000]


@pytest.mark.parametrize("member", MEMBERS)
def test_ids_are_positive_int64s_and_ascend_beyond_a_restart(member: int) -> None:
    earlier, later = LeaseIds(member, 20_000 * DAY), LeaseIds(member, 20_001 * DAY)
    ids = [ids.choose(Lessor()) for ids in (earlier, earlier, later, later)]
    assert ids == sorted(set(ids))
    assert ids[0] > 0
    assert ids[-1] < 1 << 63


def test_servers_that_start_at_once_choose_apart() -> None:
    assert LeaseIds(1, DAY).choose(Lessor()) != LeaseIds(2, DAY).choose(Lessor())


def test_an_id_that_is_taken_is_left_out() -> None:
    leases = Lessor()
    first = LeaseIds(1, DAY).choose(leases)
    for taken in (first, first + 1):
        leases.grant(taken, 60)
    assert LeaseIds(1, DAY).choose(leases) == first + 2
