"""One server's side of a random program: it is sent requests, and keeps what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import grpc.aio
from google.protobuf.message import Message

from datastore.etcdpb import kv_pb2
from datastore.etcdpb import rpc_pb2 as pb
from tests.support.client import SECONDS, Client, WatchStream
from tests.support.programs import LATEST, comparable

METHODS: dict[type[Message], tuple[str, type[Message]]] = {
    pb.RangeRequest: ("KV/Range", pb.RangeResponse),
    pb.PutRequest: ("KV/Put", pb.PutResponse),
    pb.DeleteRangeRequest: ("KV/DeleteRange", pb.DeleteRangeResponse),
    pb.TxnRequest: ("KV/Txn", pb.TxnResponse),
    pb.CompactionRequest: ("KV/Compact", pb.CompactionResponse),
    pb.LeaseGrantRequest: ("Lease/LeaseGrant", pb.LeaseGrantResponse),
    pb.LeaseRevokeRequest: ("Lease/LeaseRevoke", pb.LeaseRevokeResponse),
    pb.LeaseTimeToLiveRequest: ("Lease/LeaseTimeToLive", pb.LeaseTimeToLiveResponse),
    pb.LeaseLeasesRequest: ("Lease/LeaseLeases", pb.LeaseLeasesResponse),
    pb.HashKVRequest: ("Maintenance/HashKV", pb.HashKVResponse),
    pb.MemberListRequest: ("Cluster/MemberList", pb.MemberListResponse),
    pb.AuthEnableRequest: ("Auth/AuthEnable", pb.AuthEnableResponse),
    pb.AuthDisableRequest: ("Auth/AuthDisable", pb.AuthDisableResponse),
    pb.AuthStatusRequest: ("Auth/AuthStatus", pb.AuthStatusResponse),
    pb.AuthenticateRequest: ("Auth/Authenticate", pb.AuthenticateResponse),
    pb.AuthUserAddRequest: ("Auth/UserAdd", pb.AuthUserAddResponse),
    pb.AuthUserGetRequest: ("Auth/UserGet", pb.AuthUserGetResponse),
    pb.AuthUserListRequest: ("Auth/UserList", pb.AuthUserListResponse),
    pb.AuthUserDeleteRequest: ("Auth/UserDelete", pb.AuthUserDeleteResponse),
    pb.AuthUserChangePasswordRequest: (
        "Auth/UserChangePassword",
        pb.AuthUserChangePasswordResponse,
    ),
    pb.AuthUserGrantRoleRequest: ("Auth/UserGrantRole", pb.AuthUserGrantRoleResponse),
    pb.AuthUserRevokeRoleRequest: ("Auth/UserRevokeRole", pb.AuthUserRevokeRoleResponse),
    pb.AuthRoleAddRequest: ("Auth/RoleAdd", pb.AuthRoleAddResponse),
    pb.AuthRoleGetRequest: ("Auth/RoleGet", pb.AuthRoleGetResponse),
    pb.AuthRoleListRequest: ("Auth/RoleList", pb.AuthRoleListResponse),
    pb.AuthRoleDeleteRequest: ("Auth/RoleDelete", pb.AuthRoleDeleteResponse),
    pb.AuthRoleGrantPermissionRequest: (
        "Auth/RoleGrantPermission",
        pb.AuthRoleGrantPermissionResponse,
    ),
    pb.AuthRoleRevokePermissionRequest: (
        "Auth/RoleRevokePermission",
        pb.AuthRoleRevokePermissionResponse,
    ),
}
STANDING = 99
"""Id of the watch that every shared stream has: else nobody would answer for its progress."""


class Told(NamedTuple):
    """What one watch was told in one response; without events it was created or canceled."""

    watch_id: int
    revision: int
    fragment: bool
    end: tuple[bool, bool, str, int]
    events: tuple[kv_pb2.Event, ...] = ()


Outcome = Message | tuple[str, str | None] | list[Told]


class Side:
    """A connection, a stream that many watches share, and watches that wait for the future."""

    def __init__(self, client: Client, shared: WatchStream, stack: AsyncExitStack) -> None:
        self.client = client
        self.told: list[Told] = []
        """What the shared stream has said."""
        self._shared = shared
        self._stack = stack
        self._waiting: list[WatchStream] = []
        self._ids: set[int] = set()
        self._revision = 0
        """The highest that an answer has told."""

    async def answer(self, request: Message) -> Outcome:
        """Send one request; an error is an outcome like any other."""
        outcome = await self._ask(request)
        if isinstance(outcome, Message):
            self._revision = max(self._revision, outcome.header.revision)  # type: ignore[attr-defined] # all have one
        return outcome

    async def _ask(self, request: Message) -> Outcome:
        if isinstance(request, pb.WatchCreateRequest):
            return await self._replay(request)
        if isinstance(request, pb.WatchRequest):
            return await self._tell(request)
        if isinstance(request, pb.LeaseKeepAliveRequest):
            return await self._renew(request.ID)
        method, kind = METHODS[type(request)]
        try:
            return comparable(await self.client.call(method, request, kind))
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details()

    async def streamed(self, request: pb.RangeRequest) -> Outcome:
        """Send a range as a stream and join the chunks."""
        joined = pb.RangeResponse()
        fields = {field.name: value for field, value in request.ListFields()}
        key, end = fields.pop("key", b""), fields.pop("range_end", b"")
        try:
            async for chunk in self.client.stream(key, end, **fields):
                joined.MergeFrom(chunk)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details()
        return comparable(joined)

    async def finish(self, start: int) -> list[list[Told]]:
        """Let every future begin, and return what each stream was told."""
        while (revision := await self.client.revision()) < start + LATEST:
            await self.client.put(b"later")
        self.told += await caught_up(self._shared, revision)
        return [self.told, *[await caught_up(stream, revision) for stream in self._waiting]]

    async def _renew(self, lease: int) -> Outcome:
        try:
            (renewed,) = await self.client.keep_alive(lease)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details()
        return comparable(renewed)

    async def _tell(self, request: pb.WatchRequest) -> Outcome:
        """Send something on the shared stream, and wait until all its watches are synced."""
        await self._shared.send(request)
        is_answered = (
            request.HasField("create_request") or request.cancel_request.watch_id in self._ids
        )
        said = await caught_up(self._shared, self._revision, due=is_answered)
        for one in said:
            created, canceled, *_ = one.end
            if canceled:
                self._ids.discard(one.watch_id)
            elif created:
                self._ids.add(one.watch_id)
        self.told += said
        return said

    async def _replay(self, request: pb.WatchCreateRequest) -> Outcome:
        """Watch on a stream of its own: until the present, or from the future on."""
        stream = await self._stack.enter_async_context(self.client.watch())
        await stream.send(pb.WatchRequest(create_request=request))
        created = await stream.next()
        if created.canceled:
            return [as_told(created)]
        if request.start_revision > created.header.revision:
            self._waiting.append(stream)
            return [as_told(created)]
        said = [as_told(created), *await caught_up(stream, self._revision)]
        await stream.close()
        return said


@asynccontextmanager
async def side(client: Client) -> AsyncIterator[Side]:
    """Begin a program on a server."""
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(client.watch())
        await shared.create(b"\0", b"\0", prev_kv=True, watch_id=STANDING)
        yield Side(client, shared, stack)


async def caught_up(stream: WatchStream, revision: int, *, due: bool = False) -> list[Told]:
    """Collect what a stream says until it says that all events are delivered.

    Progress may have been asked for more than once before: an answer that is too old, or that
    comes before the answer that is due to another request, is not the last word.
    """
    said: list[Told] = []
    asked = False
    until = asyncio.get_running_loop().time() + SECONDS
    while True:
        assert asyncio.get_running_loop().time() < until, f"progress never came, only {said}"
        if not asked:
            await stream.request_progress()
            asked = True
        try:
            response = await stream.next(0.1)
        except TimeoutError:  # etcd drops what it is asked while a watch is behind
            asked = False
            continue
        if not (response.events or response.created or response.canceled):
            if response.watch_id == -1 and response.header.revision >= revision and not due:
                return said
            asked = asked and response.watch_id != -1
            continue  # periodic progress: when it comes is chance
        due = due and not (response.created or response.canceled)
        said.append(as_told(response))
        if response.canceled and response.compact_revision:
            return said


def as_told(response: pb.WatchResponse) -> Told:
    """Keep of a response what two servers must agree on."""
    end = (
        response.created,
        response.canceled,
        response.cancel_reason,
        response.compact_revision,
    )
    revision = response.header.revision
    return Told(response.watch_id, revision, response.fragment, end, tuple(response.events))


def same_told(ours: Sequence[Told], etcds: Sequence[Told]) -> bool:
    """Compare what watches were told, each by itself: etcd serves those of a stream in any order.

    Where etcd has lost a previous value to compaction, ours may keep it.
    """
    mine, others = _by_watch(ours), _by_watch(etcds)
    if mine.keys() != others.keys():
        return False
    return all(
        len(mine[watch]) == len(others[watch]) and all(map(_same, mine[watch], others[watch]))
        for watch in mine
    )


def _by_watch(told: Sequence[Told]) -> dict[int, list[Told]]:
    found: dict[int, list[Told]] = {}
    for one in told:
        found.setdefault(one.watch_id, []).append(one)
    return found


def _same(mine: Told, other: Told) -> bool:
    events: Any = zip(mine.events, other.events, strict=False)
    for event, etcds in events:
        if not etcds.HasField("prev_kv") and event.kv.version != 1:
            event.ClearField("prev_kv")
    return mine == other
