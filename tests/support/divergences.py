"""Where a server may differ from etcd 3.7.3, each with its reason; anything else is a defect.

An entry whose test passes fails the run, so that the table tells the truth.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from datastore.shim.options import DEFAULT_TRANSPORT


class Divergence(NamedTuple):
    """One test that a server is known to fail."""

    test: str
    """Name of the test function."""
    servers: frozenset[str]
    reason: str
    link: str
    run: bool = True
    """False where the test would take the server down for those that follow."""


SHIM = frozenset({"memory", "sqlite", "postgresql", "mariadb", "mysql"})
ETCD = frozenset({"etcd"})

DIVERGENCES = (
    Divergence(
        "test_keeping_what_the_same_transaction_deleted_is_refused",
        ETCD,
        "etcd 3.7.3 ends with a panic",
        "https://github.com/etcd-io/etcd/issues/18667",
        run=False,
    ),
    Divergence(
        "test_an_alarm_that_nobody_knows_is_refused",
        ETCD,
        "etcd 3.7.3 ends with a panic",
        "https://github.com/etcd-io/etcd/blob/v3.7.3/server/etcdserver/apply/backend.go",
        run=False,
    ),
    Divergence(
        "test_a_watch_that_compaction_cut_off_neither_keeps_its_id_nor_holds_up_progress",
        ETCD,
        "etcd 3.7.3 counts it as unsynced, and its id as taken, until the client cancels it",
        "https://github.com/etcd-io/etcd/blob/v3.7.3/server/storage/mvcc/watchable_store.go",
    ),
    Divergence(
        "test_an_unknown_action_on_alarms_does_nothing",
        ETCD,
        "etcd 3.7.3 ends with a panic",
        "https://github.com/etcd-io/etcd/blob/v3.7.3/server/etcdserver/apply/backend.go",
        run=False,
    ),
    Divergence(
        "test_prev_kv_that_is_compacted_is_absent",
        SHIM,
        "recent events are kept in memory whole: a previous value is there more often",
        "https://github.com/etcd-io/etcd/issues/10681",
    ),
    Divergence(
        "test_a_name_may_have_more_than_700_bytes",
        SHIM,
        "names of users and roles are a part of a primary key, which databases bound",
        "https://mariadb.com/kb/en/innodb-limitations/",
    ),
    Divergence(
        "test_what_only_protobuf_in_c_reads_is_unreadable",
        SHIM,
        "protobuf's parser in C refuses a little less than Go's of what no client encodes",
        "https://protobuf.dev/programming-guides/encoding/",
    ),
    Divergence(
        "test_a_learner_can_be_added",
        SHIM,
        "a server becomes a member by being started on the database",
        "https://etcd.io/docs/v3.6/op-guide/runtime-configuration/",
    ),
    Divergence(
        "test_peer_urls_can_be_changed",
        SHIM,
        "servers on one database have no peer URLs",
        "https://etcd.io/docs/v3.6/op-guide/runtime-configuration/",
    ),
    Divergence(
        "test_one_port_speaks_http_too",
        frozenset(f"{server}-grpcio" for server in SHIM),
        "grpc's C core takes nothing but HTTP/2",
        "https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/",
    ),
)


class Printed(NamedTuple):
    """What etcdctl prints otherwise than on etcd."""

    pattern: str
    """Found on one of the two."""
    printed: str
    """What stands for it on both."""
    reason: str
    link: str


_NO_PEERS: Final = (
    "servers on one database have no peers",
    "https://etcd.io/docs/v3.6/op-guide/runtime-configuration/",
)
PRINTED: Final = (
    Printed(r'"peerURLs":\["ADDRESS"\],|"PeerURL" : .*\n', "", *_NO_PEERS),
    Printed(r", (ADDRESS)?, ADDRESS, (true|false)$", r", PEER, ADDRESS, \2", *_NO_PEERS),
)


def find(test: str, server: str) -> Divergence | None:
    """Return the entry of a test on a server, whose name may end in `-` and a transport."""
    backend, _, transport = server.partition("-")
    names = {backend, f"{backend}-{transport or DEFAULT_TRANSPORT}"}
    for entry in DIVERGENCES:
        if entry.test == test and not names.isdisjoint(entry.servers):
            return entry
    return None
