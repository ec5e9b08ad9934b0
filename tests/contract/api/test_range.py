"""KV.Range (contract 2.2, 2.3; traps T2, T9 to T16)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import (
    BAD_SORT,
    COMPACTED,
    FUTURE,
    NO_KEY,
    Client,
    prefix_end,
    refused,
)
from tests.support.running import Server

ORDERS = {"NONE": 0, "ASCEND": 1, "DESCEND": 2}
TARGETS = {"KEY": 0, "VERSION": 1, "CREATE": 2, "MOD": 3, "VALUE": 4}


async def fill(client: Client, prefix: bytes, count: int) -> list[bytes]:
    """Put keys whose value, version, create and mod revision all sort differently."""
    keys = [prefix + b"%02d" % number for number in range(count)]
    for key in reversed(keys):
        await client.put(key)
    for number, key in enumerate(keys):
        for version in range((number * 3) % count):
            await client.put(key, b"%d-%02d" % (version % 2, (number * 7) % count))
    return keys


async def test_a_missing_key_answers_with_the_current_revision(client, prefix):
    """T2: the header is the payload of kube-apiserver's current-revision call."""
    written = await client.put(prefix)
    answer = await client.get(prefix + b"missing")
    assert not answer.kvs
    assert (answer.count, answer.more) == (0, False)
    assert answer.header.revision == written.header.revision


async def test_the_header_tells_the_current_revision_for_an_old_one(client, prefix):
    """T2."""
    first = await client.put(prefix, b"old")
    second = await client.put(prefix, b"new")
    answer = await client.get(prefix, revision=first.header.revision)
    assert answer.kvs[0].value == b"old"
    assert answer.header.revision == second.header.revision


async def test_a_key_tells_its_revisions_version_and_lease(client, prefix):
    lease = (await client.grant(1000)).ID
    created = await client.put(prefix, b"a")
    changed = await client.put(prefix, b"b", lease=lease)
    (found,) = (await client.get(prefix)).kvs
    assert (found.key, found.value, found.version, found.lease) == (prefix, b"b", 2, lease)
    assert found.create_revision == created.header.revision
    assert found.mod_revision == changed.header.revision


async def test_count_is_of_the_whole_range_whatever_the_limit(client, prefix):
    """T9."""
    await fill(client, prefix, 5)
    answer = await client.list(prefix, limit=2)
    assert (len(answer.kvs), answer.count, answer.more) == (2, 5, True)


@pytest.mark.parametrize("limit", [0, 5, 6])
async def test_more_is_false_when_nothing_was_cut(client, prefix, limit):
    await fill(client, prefix, 5)
    answer = await client.list(prefix, limit=limit)
    assert (len(answer.kvs), answer.more) == (5, False)


async def test_the_next_page_counts_what_remains_at_the_pinned_revision(client, prefix):
    """T10: kube-apiserver pages by `len(kvs) < count`."""
    keys = await fill(client, prefix, 5)
    first = await client.list(prefix, limit=2)
    await client.put(prefix + b"later")
    await client.delete(keys[4])
    rest = await client.get(
        first.kvs[-1].key + b"\0",
        prefix_end(prefix),
        limit=2,
        revision=first.header.revision,
    )
    assert [found.key for found in rest.kvs] == keys[2:4]
    assert (rest.count, rest.more) == (3, True)


async def test_count_is_exact_at_an_old_revision(client, prefix):
    """T9."""
    keys = await fill(client, prefix, 4)
    then = await client.revision()
    await client.delete(keys[0])
    await client.put(prefix + b"x")
    await client.put(prefix + b"y")
    assert (await client.list(prefix, count_only=True, revision=then)).count == 4
    assert (await client.list(prefix, count_only=True)).count == 5


async def test_count_only_gives_no_keys_and_ignores_the_limit(client, prefix):
    await fill(client, prefix, 5)
    answer = await client.list(prefix, count_only=True, limit=2)
    assert (len(answer.kvs), answer.count, answer.more) == (0, 5, False)


async def test_keys_only_leaves_out_value_and_lease_and_keeps_the_rest(client, prefix):
    """T14; 3.7 leaves out the lease too."""
    lease = (await client.grant(1000)).ID
    await client.put(prefix, b"value", lease=lease)
    (found,) = (await client.get(prefix, keys_only=True)).kvs
    (whole,) = (await client.get(prefix)).kvs
    whole.value, whole.lease = b"", 0
    assert found == whole


async def test_keys_only_sorted_by_value_keeps_the_lease(client, prefix):
    lease = (await client.grant(1000)).ID
    await client.put(prefix, b"value", lease=lease)
    (found,) = (await client.get(prefix, keys_only=True, sort_target="VALUE")).kvs
    assert (found.value, found.lease) == (b"", lease)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("order", ORDERS)
async def test_keys_come_sorted_as_asked(client, prefix, target, order):
    """A target without an order ascends."""
    await fill(client, prefix, 7)
    field = {"CREATE": "create_revision", "MOD": "mod_revision"}.get(target, target.lower())
    answer = await client.list(prefix, sort_order=order, sort_target=target)
    fields = [getattr(found, field) for found in answer.kvs]
    assert len(fields) == 7
    assert fields == sorted(fields, reverse=order == "DESCEND")


async def test_a_sorted_range_is_cut_after_sorting(client, prefix):
    """The election recipe: the oldest key of a prefix."""
    keys = await fill(client, prefix, 5)
    answer = await client.list(prefix, sort_order="ASCEND", sort_target="CREATE", limit=1)
    assert [found.key for found in answer.kvs] == [keys[4]]
    assert (answer.count, answer.more) == (5, True)


@pytest.mark.parametrize("field", ["sort_order", "sort_target"])
async def test_an_unknown_sort_option_is_refused(client, prefix, field):
    with refused(BAD_SORT):
        await client.get(prefix, **{field: 9})


@pytest.mark.parametrize(
    ("field", "kept"),
    [
        ("min_mod_revision", [1, 2]),
        ("max_mod_revision", [0, 1]),
        ("min_create_revision", [1, 2]),
        ("max_create_revision", [0, 1]),
    ],
)
async def test_revision_filters_are_inclusive_and_leave_count_alone(client, prefix, field, kept):
    keys = [prefix + name for name in (b"a", b"b", b"c")]
    revisions = [(await client.put(key)).header.revision for key in keys]
    answer = await client.list(prefix, **{field: revisions[1]})
    assert [found.key for found in answer.kvs] == [keys[index] for index in kept]
    assert (answer.count, answer.more) == (3, False)


async def test_more_is_over_the_filtered_keys(client, prefix):
    revisions = [(await client.put(prefix + b"%d" % n)).header.revision for n in range(4)]
    cut = await client.list(prefix, min_mod_revision=revisions[1], limit=2)
    whole = await client.list(prefix, min_mod_revision=revisions[2], limit=2)
    assert (len(cut.kvs), cut.count, cut.more) == (2, 4, True)
    assert (len(whole.kvs), whole.count, whole.more) == (2, 4, False)


ODD = [
    b"",
    b"\0",
    b"\0\0",
    b" ",
    b"%",
    b"A",
    b"_",
    b"a",
    b"a ",
    b"a\0",
    b"\\",
    b"\xc3\x28",
    b"\xff",
]


async def test_keys_are_raw_bytes_in_unsigned_order(client, prefix):
    """T13: no collation, no wildcards, no padding, no text."""
    keys = sorted(prefix + suffix for suffix in ODD)
    for key in keys:
        await client.put(key, key[::-1])
    answer = await client.list(prefix)
    assert [(found.key, found.value) for found in answer.kvs] == [(k, k[::-1]) for k in keys]
    for key in keys:
        assert [found.key for found in (await client.get(key)).kvs] == [key]


async def test_a_range_end_of_nul_means_from_key_on(client, high):
    """T13."""
    await client.put(high + b"1")
    await client.put(high + b"2")
    answer = await client.get(high + b"2", b"\0")
    assert high + b"2" in [found.key for found in answer.kvs]
    assert all(found.key >= high + b"2" for found in answer.kvs)


async def test_nul_to_nul_is_the_whole_key_space(client, prefix):
    """T13."""
    await client.put(b"\xff" + prefix)
    await client.put(b"\0" + prefix)
    answer = await client.get(b"\0", b"\0")
    keys = [found.key for found in answer.kvs]
    assert {b"\xff" + prefix, b"\0" + prefix} <= set(keys)
    assert all(one < other for one, other in pairwise(keys))
    assert answer.count == len(keys)


@pytest.mark.parametrize("end", [b"a", b"b"])
async def test_a_range_that_ends_before_it_starts_is_empty(client, prefix, end):
    await client.put(prefix + b"b")
    answer = await client.get(prefix + b"b", prefix + end)
    assert (len(answer.kvs), answer.count) == (0, 0)


async def test_an_empty_key_is_refused(client):
    with refused(NO_KEY):
        await client.get(b"", b"\0")


async def test_a_revision_below_zero_means_the_current_one(client, prefix):
    await client.put(prefix, b"now")
    assert (await client.get(prefix, revision=-1)).kvs[0].value == b"now"


@pytest.mark.parametrize("serializable", [False, True])
async def test_a_future_revision_is_refused(client, prefix, serializable):
    """T11."""
    future = await client.revision() + 100_000
    with refused(FUTURE):
        await client.get(prefix, revision=future, serializable=serializable)


@pytest.mark.parametrize("fields", [{}, {"serializable": True}, {"count_only": True}])
async def test_a_compacted_revision_is_refused(client, prefix, fields):
    """T11."""
    old = (await client.put(prefix)).header.revision
    new = (await client.put(prefix)).header.revision
    await client.compact(new)
    with refused(COMPACTED):
        await client.get(prefix, revision=old, **fields)


async def test_the_compacted_revision_itself_is_readable(client, prefix):
    """T12."""
    await client.put(prefix + b"gone")
    await client.put(prefix + b"kept", b"at")
    at = (await client.delete(prefix + b"gone")).header.revision
    await client.put(prefix + b"kept", b"after")
    await client.compact(at)
    answer = await client.list(prefix, revision=at)
    assert [(found.key, found.value) for found in answer.kvs] == [(prefix + b"kept", b"at")]
    assert answer.count == 1


@pytest.mark.parametrize("serializable", [False, True])
async def test_headers_of_reads_never_go_back_on_a_connection(client, prefix, serializable):
    """T16."""
    seen = []
    for _ in range(10):
        seen.append((await client.put(prefix)).header.revision)
        seen.append((await client.get(prefix, serializable=serializable)).header.revision)
    assert seen == sorted(seen)


async def test_a_read_on_another_connection_sees_an_acknowledged_write(
    client: Client, server: Server, prefix: bytes
) -> None:
    """T15."""
    async with Client(server.target) as other:
        for number in range(20):
            await client.put(prefix, b"%d" % number)
            assert (await other.get(prefix)).kvs[0].value == b"%d" % number


async def test_an_answer_may_be_larger_than_any_request(client, prefix):
    """2.3: the server's own send limit is lifted."""
    for number in range(6):
        await client.put(prefix + b"%d" % number, bytes(1_000_000))
    assert pb.RangeResponse.ByteSize(await client.list(prefix)) > 6_000_000
