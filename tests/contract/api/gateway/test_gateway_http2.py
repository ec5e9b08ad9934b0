"""The same port and connection over TLS: gRPC, the JSON gateway and pages by HTTP/2 (trap T62)."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator

import grpc
import pytest

from datastore.etcdpb import rpc_pb2 as pb
from tests.support import http2_client as h2
from tests.support.certificates import Authority
from tests.support.http2_client import DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM
from tests.support.json_client import b64
from tests.support.running import Listen


class Wire(h2.Client):
    """A client that sends plain requests too."""

    rest = b""
    """What came of the row of answers that is being read."""

    def begin(self, method: str, path: str, *more: h2.Field, end: bool = False) -> int:
        stream = self.next_stream
        self.next_stream += 2
        fields = [
            (":method", method),
            (":scheme", "https"),
            (":path", path),
            (":authority", "127.0.0.1"),
            *more,
        ]
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(h2.frame(HEADERS, flags, stream, h2.literal(*fields)))
        return stream

    def get(self, path: str, method: str = "GET") -> h2.Answer:
        return self.answer(self.begin(method, path, end=True))

    def post(self, path: str, request: object) -> h2.Answer:
        stream = self.begin("POST", path, ("content-type", "application/json"))
        self.data(stream, json.dumps(request).encode(), end=True)
        return self.answer(stream)

    def result(self, path: str, request: object):
        answer = self.post(f"/v3/{path}", request)
        assert answer.headers[":status"] == "200", answer
        return json.loads(answer.body)

    def part(self, stream: int):
        """Return the next part of a row of answers."""
        while b"\n" not in self.rest:
            self.rest += self.until(lambda f: f.kind == DATA and f.stream == stream).payload
        line, _, self.rest = self.rest.partition(b"\n")
        return json.loads(line)["result"]


@pytest.fixture(scope="session")
def secure(kind, launch, tmp_path_factory):
    directory = tmp_path_factory.mktemp("h2")
    authority = Authority("byre test")
    cert, key = authority.issue(directory, "server")
    credentials = grpc.ssl_channel_credentials(authority.pem)
    flags = [f"--cert-file={cert}", f"--key-file={key}"]
    server = launch(kind, *flags, listen=Listen.tcp(credentials))
    yield server, authority
    server.close()


@pytest.fixture
def wire(secure) -> Iterator[Wire]:
    server, authority = secure
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with Wire(f"https://{server.target}", tls=context) as client:
        yield client


async def test_pages_are_served(wire):
    answer = wire.get("/version")
    assert answer.headers[":status"] == "200"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "etcdserver" in json.loads(answer.body)
    assert json.loads(wire.get("/health?serializable=true").body)["health"] == "true"
    assert b"etcd_server_has_leader" in wire.get("/metrics").body
    assert wire.get("/missing").headers[":status"] == "404"
    head = wire.get("/v3/kv/range", "HEAD")
    assert head.headers[":status"] == "501"
    assert head.body == b""


async def test_grpc_and_json_share_a_connection(wire, prefix):
    put = wire.result("kv/put", {"key": b64(prefix), "value": b64(b"x")})
    body = pb.RangeRequest(key=prefix).SerializeToString()
    fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/etcdserverpb.KV/Range"),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    stream = wire.next_stream
    wire.next_stream += 2
    wire.send(h2.frame(HEADERS, END_HEADERS, stream, h2.literal(*fields)))
    wire.data(stream, h2.message(body), end=True)
    found = pb.RangeResponse.FromString(wire.answer(stream).message)
    assert str(found.kvs[0].mod_revision) == put["header"]["revision"]


async def test_what_is_refused_has_its_status(wire, prefix):
    for path, request, status, code in (
        ("/v3/kv/none", {}, "404", 5),
        ("/v3/kv/range", {}, "400", 3),
        ("/v3/lease/revoke", {"ID": "404"}, "404", 5),
        ("/v3/election/leader", {"name": b64(prefix)}, "500", 2),
    ):
        answer = wire.post(path, request)
        assert (answer.headers[":status"], json.loads(answer.body)["code"]) == (status, code)
    assert wire.get("/v3/kv/range").headers[":status"] == "501"


async def test_large_values_go_in_and_out(wire, prefix):
    value = b64(bytes(range(256)) * 200)
    wire.result("kv/put", {"key": b64(prefix), "value": value})
    for n in range(9):
        compare = {"key": b64(prefix), "target": "VALUE", "value": value}
        request = {"key": b64(prefix + b"%d" % n), "value": value}
        txn = {"compare": [compare], "success": [{"request_put": request}]}
        assert wire.result("kv/txn", txn)["succeeded"]
    found = wire.result("kv/range", {"key": b64(prefix), "range_end": b64(prefix[:-1] + b"0")})
    assert [kv["value"] for kv in found["kvs"]] == [value] * 10


async def test_a_watch_goes_both_ways(wire, prefix):
    stream = wire.begin("POST", "/v3/watch")
    for n in (1, 2):
        create = {"create_request": {"key": b64(prefix), "watch_id": n}}
        wire.data(stream, json.dumps(create).encode())
        assert wire.part(stream)["watch_id"] == str(n)
    wire.data(stream, b"", end=True)
    put = wire.begin("POST", "/v3/kv/put")
    wire.data(put, json.dumps({"key": b64(prefix)}).encode(), end=True)
    assert {wire.part(stream)["watch_id"], wire.part(stream)["watch_id"]} == {"1", "2"}


async def test_who_resets_the_stream_leaves_the_queue_of_a_lock(wire, prefix):
    name = {"name": b64(prefix)}
    wire.result("lock/lock", name)
    stream = wire.begin("POST", "/v3/lock/lock")
    wire.data(stream, json.dumps(name).encode(), end=True)
    keys = {"key": b64(prefix), "range_end": b64(prefix[:-1] + b"0"), "count_only": True}
    while wire.result("kv/range", keys)["count"] != "2":
        pass
    wire.send(h2.frame(RST_STREAM, 0, stream, h2.number(h2.CANCEL)))
    while wire.result("kv/range", keys)["count"] != "1":
        pass


async def test_a_deadline_is_held(wire, prefix):
    wire.result("lock/lock", {"name": b64(prefix)})
    stream = wire.begin("POST", "/v3/lock/lock", ("grpc-timeout", "300m"))
    wire.data(stream, json.dumps({"name": b64(prefix)}).encode(), end=True)
    answer = wire.answer(stream)
    assert answer.headers[":status"] == "504"
    assert json.loads(answer.body)["code"] == 4
