"""Which RPC is behind which path, as the annotations of etcd 3.7's .proto files have it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from datastore.etcdpb import election_pb2, lock_pb2, rpc_pb2  # what the pool has to know

_KNOWN: Final = (rpc_pb2, lock_pb2, election_pb2)
_AUTH: Final = {
    "enable": "AuthEnable",
    "disable": "AuthDisable",
    "status": "AuthStatus",
    "authenticate": "Authenticate",
    "user/add": "UserAdd",
    "user/get": "UserGet",
    "user/list": "UserList",
    "user/delete": "UserDelete",
    "user/changepw": "UserChangePassword",
    "user/grant": "UserGrantRole",
    "user/revoke": "UserRevokeRole",
    "role/add": "RoleAdd",
    "role/get": "RoleGet",
    "role/list": "RoleList",
    "role/delete": "RoleDelete",
    "role/grant": "RoleGrantPermission",
    "role/revoke": "RoleRevokePermission",
}
_PATHS: Final = {
    "kv/range": "etcdserverpb.KV.Range",
    "kv/put": "etcdserverpb.KV.Put",
    "kv/deleterange": "etcdserverpb.KV.DeleteRange",
    "kv/txn": "etcdserverpb.KV.Txn",
    "kv/compaction": "etcdserverpb.KV.Compact",
    "watch": "etcdserverpb.Watch.Watch",
    "lease/grant": "etcdserverpb.Lease.LeaseGrant",
    "lease/revoke": "etcdserverpb.Lease.LeaseRevoke",
    "kv/lease/revoke": "etcdserverpb.Lease.LeaseRevoke",
    "lease/keepalive": "etcdserverpb.Lease.LeaseKeepAlive",
    "lease/timetolive": "etcdserverpb.Lease.LeaseTimeToLive",
    "kv/lease/timetolive": "etcdserverpb.Lease.LeaseTimeToLive",
    "lease/leases": "etcdserverpb.Lease.LeaseLeases",
    "kv/lease/leases": "etcdserverpb.Lease.LeaseLeases",
    "cluster/member/add": "etcdserverpb.Cluster.MemberAdd",
    "cluster/member/remove": "etcdserverpb.Cluster.MemberRemove",
    "cluster/member/update": "etcdserverpb.Cluster.MemberUpdate",
    "cluster/member/list": "etcdserverpb.Cluster.MemberList",
    "cluster/member/promote": "etcdserverpb.Cluster.MemberPromote",
    "maintenance/alarm": "etcdserverpb.Maintenance.Alarm",
    "maintenance/status": "etcdserverpb.Maintenance.Status",
    "maintenance/defragment": "etcdserverpb.Maintenance.Defragment",
    "maintenance/hash": "etcdserverpb.Maintenance.Hash",
    "maintenance/hashkv": "etcdserverpb.Maintenance.HashKV",
    "maintenance/snapshot": "etcdserverpb.Maintenance.Snapshot",
    "maintenance/transfer-leadership": "etcdserverpb.Maintenance.MoveLeader",
    "maintenance/downgrade": "etcdserverpb.Maintenance.Downgrade",
    "lock/lock": "v3lockpb.Lock.Lock",
    "lock/unlock": "v3lockpb.Lock.Unlock",
    "election/campaign": "v3electionpb.Election.Campaign",
    "election/proclaim": "v3electionpb.Election.Proclaim",
    "election/leader": "v3electionpb.Election.Leader",
    "election/observe": "v3electionpb.Election.Observe",
    "election/resign": "v3electionpb.Election.Resign",
    **{f"auth/{path}": f"etcdserverpb.Auth.{method}" for path, method in _AUTH.items()},
}


class Route(NamedTuple):
    """One RPC.

    `sends_many` and `answers_many` say which side streams.
    """

    rpc: str
    request: type[Message]
    answer: type[Message]
    sends_many: bool
    answers_many: bool


def _routes() -> Iterator[tuple[str, Route]]:
    pool = descriptor_pool.Default()
    for path, name in _PATHS.items():
        method = pool.FindMethodByName(name)
        service, _, short = name.rpartition(".")
        yield (
            f"/v3/{path}",
            Route(
                f"/{service}/{short}",
                message_factory.GetMessageClass(method.input_type),
                message_factory.GetMessageClass(method.output_type),
                method.client_streaming,
                method.server_streaming,
            ),
        )


ROUTES: Final[Mapping[str, Route]] = dict(_routes())
"""By the path of the HTTP request."""
