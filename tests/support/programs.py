"""Random requests that mean the same on two servers, and answers made comparable.

Revisions in a drawn request are relative to the one at which a program starts: 1 is below it and
compacted, 2 is the start itself, more is later. 0 stays 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st

from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import delete_op, get_op, put_op

NUMBERS = ("version", "create_revision", "mod_revision", "value", "lease")
"""Compare.CompareTarget."""
KEYS = (b"\0", b"a", b"b", b"b\0", b"b\xff", b"c", b"\xff")
LEASES = (1, 2, -3)
UNKNOWN_LEASE = 9
TTL = 100_000
TOO_LONG = 9_000_000_001
START = 2
LATEST = 20
"""How far ahead of a program's start a drawn revision is at most."""
LARGE = b"large"
LARGE_BYTES = 700_000
"""What stands for it: two are more than a request may have, three more than a fragment."""
WATCH_IDS = (0, 0, 0, 1, 2, -5)


def one_in(share: int, rare: Any, common: Any) -> st.SearchStrategy[Any]:
    """Draw something rare once in `share` times."""
    branches = [
        value if isinstance(value, st.SearchStrategy) else st.just(value)
        for value in (rare, common)
    ]
    return st.integers(1, share).flatmap(lambda number: branches[number != share // 2])


keys = st.sampled_from(KEYS)
ends = st.sampled_from((b"", b"", b"", b"\0", b"b", b"c", b"d", b"\xff\xff"))
values = one_in(40, LARGE, st.sampled_from((b"", b"1", b"2", b"3")))
revisions = one_in(3, st.integers(1, LATEST), 0)
bounds = one_in(8, st.integers(START, START + 10), 0)
leases = st.sampled_from((0, 0, 0, 0, 1, 1, 2))
rarely = one_in(8, True, False)

ranges = st.builds(
    pb.RangeRequest,
    key=one_in(30, b"", keys),
    range_end=ends,
    limit=st.sampled_from((0, 0, 0, 1, 2, 3, -1)),
    revision=revisions,
    sort_order=one_in(3, st.sampled_from((1, 1, 1, 2, 2, 2, 9)), 0),
    sort_target=one_in(3, st.sampled_from((1, 1, 2, 2, 3, 3, 4, 4, 9)), 0),
    serializable=st.booleans(),
    keys_only=rarely,
    count_only=rarely,
    min_mod_revision=bounds,
    max_mod_revision=bounds,
    min_create_revision=bounds,
    max_create_revision=bounds,
)
puts = st.builds(
    pb.PutRequest,
    key=one_in(40, b"", keys),
    value=values,
    lease=one_in(30, UNKNOWN_LEASE, leases),
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
        {target: draw(number.get(target, revisions))} if draw(one_in(8, False, True)) else {}
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
    plain = st.one_of(
        st.builds(put_op, keys, values, lease=leases),
        st.builds(get_op, keys, ends),
        st.builds(delete_op, keys, prev_kv=st.booleans()),
    )
    odd = st.one_of(
        st.builds(pb.RequestOp, request_range=ranges),
        st.builds(pb.RequestOp, request_put=puts),
        st.builds(pb.RequestOp, request_delete_range=deletes),
    )
    flat = one_in(4, odd, plain)
    if not depth:
        return flat
    nested = st.builds(pb.RequestOp, request_txn=transactions(depth - 1))
    return one_in(4, nested, flat)


def transactions(depth: int = 3) -> st.SearchStrategy[pb.TxnRequest]:
    """Draw a transaction, nested up to `depth` levels."""
    branch = st.lists(operations(depth), max_size=3)
    guards = st.lists(compares(), max_size=2)
    return st.builds(pb.TxnRequest, compare=guards, success=branch, failure=branch)


def survivable(txn: pb.TxnRequest) -> pb.TxnRequest:
    """Take out what kills etcd 3.7.3: keeping the value of a key that the transaction deleted.

    It refuses most such transactions for naming a key twice, but not all.
    """
    nested = list(walk(txn))
    gone = [m for m in nested if isinstance(m, pb.DeleteRangeRequest)]
    for message in nested:
        if isinstance(message, pb.PutRequest) and any(_holds(each, message.key) for each in gone):
            message.ignore_value = message.ignore_lease = False
    return txn


def _holds(span: pb.DeleteRangeRequest, key: bytes) -> bool:
    if not span.range_end:
        return key == span.key
    return span.key <= key and (span.range_end == b"\0" or key < span.range_end)


def walk(message: Message) -> Iterator[Message]:
    """Yield a message and all that it holds."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from walk(part)


some_lease = st.sampled_from((UNKNOWN_LEASE, *LEASES))
creations = st.builds(
    pb.WatchCreateRequest,
    key=one_in(20, b"", keys),
    range_end=ends,
    prev_kv=st.booleans(),
    fragment=st.booleans(),
    progress_notify=rarely,
    filters=st.lists(st.sampled_from((0, 1)), max_size=2),
    start_revision=one_in(2, st.integers(1, LATEST), st.sampled_from((0, 0, 0, 0, -1))),
)


def at_present(create: pb.WatchCreateRequest, watch_id: int) -> pb.WatchRequest:
    """Return what adds a watch that begins now.

    One from the future holds up the stream's progress, and in etcd 3.7.3 so does, for good, one
    that a compaction cut off.
    """
    create.watch_id = watch_id
    create.start_revision = min(create.start_revision, 0)
    return pb.WatchRequest(create_request=create)


cancels = st.builds(pb.WatchCancelRequest, watch_id=st.sampled_from((0, 1, 2, 3, -5, 50)))
shared_watches = one_in(
    4,
    st.builds(pb.WatchRequest, cancel_request=cancels),
    st.builds(at_present, creations, st.sampled_from(WATCH_IDS)),
)
KINDS: tuple[tuple[int, st.SearchStrategy[Any]], ...] = (
    (12, puts),
    (10, ranges),
    (10, transactions().map(survivable)),
    (4, deletes),
    (2, st.builds(pb.CompactionRequest, revision=st.integers(-1, 12), physical=st.booleans())),
    (
        2,
        st.builds(pb.LeaseGrantRequest, ID=st.sampled_from(LEASES), TTL=one_in(8, TOO_LONG, TTL)),
    ),
    (2, st.builds(pb.LeaseRevokeRequest, ID=some_lease)),
    (2, st.builds(pb.LeaseTimeToLiveRequest, ID=some_lease, keys=st.booleans())),
    (2, st.builds(pb.LeaseKeepAliveRequest, ID=some_lease)),
    (1, st.builds(pb.LeaseLeasesRequest)),
    # etcd also has the hashes of earlier compactions at hand.
    (1, st.builds(pb.HashKVRequest, revision=st.sampled_from((0, LATEST)))),
    (2, creations),
    (2, shared_watches),
)
requests: st.SearchStrategy[Message] = st.sampled_from(
    [kind for weight, kind in KINDS for _ in range(weight)]
).flatmap(lambda kind: kind)

PRELUDE: tuple[Message, ...] = (
    pb.LeaseGrantRequest(ID=1, TTL=TTL),
    pb.LeaseGrantRequest(ID=2, TTL=TTL),
    pb.PutRequest(key=b"a", value=b"1"),
    pb.PutRequest(key=b"b", value=b"2", lease=1),
    pb.PutRequest(key=b"b\0", value=b"1", lease=1),
    pb.PutRequest(key=b"a", value=b"3"),
)
"""So that programs find something."""


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
    """Return the request with its revisions counted from where the program starts.

    Large values are put in here, and not drawn, so that a program can be printed.
    """
    copy = type(request)()
    copy.CopyFrom(request)
    for message in walk(copy):
        for field, value in message.ListFields():
            if field.name in RELATIVE and value > 0:
                setattr(message, field.name, start + value - START)
            elif value == LARGE:
                setattr(message, field.name, bytes(LARGE_BYTES))
    return copy


def comparable(answer: Message) -> Message:
    """Return an answer without what two servers may not share: ids, time left, order of sets."""
    for message in walk(answer):
        if isinstance(message, pb.ResponseHeader):
            message.cluster_id = message.member_id = message.raft_term = 0
    if isinstance(answer, pb.HashKVResponse):
        # etcd keeps the hashes of compactions, with what was compacted before each.
        answer.hash = answer.compact_revision = 0
    if isinstance(answer, pb.MemberListResponse):
        answer.ClearField("members")
    if isinstance(answer, pb.AuthenticateResponse):
        answer.token = ""
    if isinstance(answer, pb.LeaseTimeToLiveResponse):
        answer.TTL = min(answer.TTL, 0)
        answer.keys.sort()
    if isinstance(answer, pb.LeaseLeasesResponse):
        answer.leases.sort(key=lambda lease: lease.ID)
    return answer
