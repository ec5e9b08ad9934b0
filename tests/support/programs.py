"""Random requests that mean the same on two servers, and answers made comparable.

Revisions in a drawn request are relative to the one at which a program starts: 1 is below it and
compacted, 2 is the start itself, more is later. 0 stays 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import delete_op, get_op, put_op

NUMBERS = ("version", "create_revision", "mod_revision", "value", "lease")
"""Compare.CompareTarget."""
KEYS = (b"\0", b"a", b"b", b"b\0", b"b\xff", b"c", b"\xff")
LEASES = (1, 2, -3)
TTL = 100_000
START = 2

keys = st.sampled_from(KEYS)
ends = st.sampled_from((b"", b"", b"", b"\0", b"b", b"c", b"d", b"\xff\xff"))
values = st.sampled_from((b"", b"1", b"2", b"3"))
revisions = st.one_of(st.just(0), st.integers(1, 16))
leases = st.sampled_from((0, 0, 0, 9, *LEASES))
rarely = st.sampled_from((False, False, False, True))

ranges = st.builds(
    pb.RangeRequest,
    key=st.one_of(keys, keys, keys, st.just(b"")),
    range_end=ends,
    limit=st.sampled_from((0, 0, 0, 1, 2, 3, -1)),
    revision=revisions,
    sort_order=st.sampled_from((0, 0, 1, 2)),
    sort_target=st.sampled_from((0, 0, 1, 2, 3, 4)),
    serializable=st.booleans(),
    keys_only=rarely,
    count_only=rarely,
    min_mod_revision=st.one_of(st.just(0), st.just(0), revisions),
    max_mod_revision=st.one_of(st.just(0), st.just(0), revisions),
    min_create_revision=st.one_of(st.just(0), st.just(0), revisions),
    max_create_revision=st.one_of(st.just(0), st.just(0), revisions),
)
puts = st.builds(
    pb.PutRequest,
    key=st.one_of(keys, keys, keys, keys, st.just(b"")),
    value=values,
    lease=leases,
    prev_kv=st.booleans(),
    ignore_value=rarely,
    ignore_lease=rarely,
)
deletes = st.builds(pb.DeleteRangeRequest, key=keys, range_end=ends, prev_kv=st.booleans())


@st.composite
def compares(draw: st.DrawFn) -> pb.Compare:
    """Draw a guard; now and then its target is not set."""
    target = draw(
        st.sampled_from(("version", "create_revision", "mod_revision", "lease", "value"))
    )
    number = {"version": st.integers(0, 3), "lease": leases, "value": values}
    fields: dict[str, Any] = (
        {target: draw(number.get(target, revisions))} if draw(st.booleans()) else {}
    )
    return pb.Compare(
        key=draw(keys),
        range_end=draw(ends),
        result=draw(st.sampled_from((0, 1, 2, 3))),  # type: ignore[arg-type]
        target=NUMBERS.index(target),  # type: ignore[arg-type]
        **fields,
    )


def operations(depth: int) -> st.SearchStrategy[pb.RequestOp]:
    """Draw an operation of a transaction."""
    kinds = [
        st.builds(pb.RequestOp, request_range=ranges),
        st.builds(pb.RequestOp, request_put=puts),
        st.builds(pb.RequestOp, request_delete_range=deletes),
        st.builds(put_op, keys, values),
        st.builds(get_op, keys, ends),
        st.builds(delete_op, keys),
    ]
    if depth:
        kinds.append(st.builds(pb.RequestOp, request_txn=transactions(depth - 1)))
    return st.one_of(kinds)


def transactions(depth: int = 2) -> st.SearchStrategy[pb.TxnRequest]:
    """Draw a transaction, nested up to `depth` levels."""
    branch = st.lists(operations(depth), max_size=4)
    guards = st.lists(compares(), max_size=2)
    return st.builds(pb.TxnRequest, compare=guards, success=branch, failure=branch)


def survivable(txn: pb.TxnRequest) -> pb.TxnRequest:
    """Take out what kills etcd 3.7.3: keeping the value of a key that the transaction deleted."""
    nested = list(walk(txn))
    if any(m.range_end == b"\0" for m in nested if isinstance(m, pb.DeleteRangeRequest)):
        for message in nested:
            if isinstance(message, pb.PutRequest):
                message.ignore_value = message.ignore_lease = False
    return txn


def walk(message: Message) -> Iterator[Message]:
    """Yield a message and all that it holds."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from walk(part)


requests: st.SearchStrategy[Message] = st.one_of(
    ranges,
    puts,
    puts,
    deletes,
    transactions().map(survivable),
    st.builds(pb.CompactionRequest, revision=st.integers(1, 16), physical=st.booleans()),
    st.builds(pb.LeaseGrantRequest, ID=st.sampled_from(LEASES), TTL=st.just(TTL)),
    st.builds(pb.LeaseRevokeRequest, ID=st.sampled_from((9, *LEASES))),
    st.builds(pb.LeaseTimeToLiveRequest, ID=st.sampled_from((9, *LEASES)), keys=st.booleans()),
    st.builds(pb.LeaseLeasesRequest),
    st.builds(
        pb.WatchCreateRequest,
        key=keys,
        range_end=ends,
        start_revision=st.integers(1, 8),
        prev_kv=st.booleans(),
        filters=st.lists(st.sampled_from((0, 1)), max_size=1),
    ),
)


RELATIVE = frozenset(
    {
        "revision",
        "min_mod_revision",
        "max_mod_revision",
        "min_create_revision",
        "max_create_revision",
        "mod_revision",
        "create_revision",
        "start_revision",
    }
)


def placed(request: Message, start: int) -> Message:
    """Return the request with its revisions counted from where the program starts."""
    copy = type(request)()
    copy.CopyFrom(request)
    for message in walk(copy):
        for field, value in message.ListFields():
            if field.name in RELATIVE and value > 0:
                setattr(message, field.name, start + value - START)
    return copy


def comparable(answer: Message) -> Message:
    """Return an answer without what two servers may not share: ids, time left, order of sets."""
    for message in walk(answer):
        if isinstance(message, pb.ResponseHeader):
            message.cluster_id = message.member_id = message.raft_term = 0
    if isinstance(answer, pb.LeaseTimeToLiveResponse):
        answer.TTL = min(answer.TTL, 0)
        answer.keys.sort()
    if isinstance(answer, pb.LeaseLeasesResponse):
        answer.leases.sort(key=lambda lease: lease.ID)
    return answer


def same_events(ours: list[kv_pb2.Event], etcds: list[kv_pb2.Event]) -> bool:
    """Compare events; where etcd has lost a previous value to compaction, ours may keep it."""
    if len(ours) != len(etcds):
        return False
    for mine, other in zip(ours, etcds, strict=True):
        if not other.HasField("prev_kv") and mine.kv.version != 1:
            mine.ClearField("prev_kv")
    return ours == etcds
