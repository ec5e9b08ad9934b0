"""The JSON gateway below /v3/ (traps T20, T62): requests with one answer."""

from __future__ import annotations

import pytest

from datastore.shim.gateway.routes import ROUTES
from tests.support.json_client import JsonClient, b64
from tests.support.queues import queued

HEADER = {"cluster_id", "member_id", "revision", "raft_term"}


async def test_keys_and_values_are_base64_and_long_numbers_text(web, client, prefix):
    put = await web.result("kv/put", {"key": b64(prefix), "value": b64(b"\x00\xff")})
    revision = put["header"]["revision"]
    assert put == {"header": put["header"]}
    assert put["header"].keys() == HEADER
    assert all(isinstance(value, str) for value in put["header"].values())
    found = await web.result("kv/range", {"key": b64(prefix)})
    assert found == {
        "header": {**put["header"], "revision": found["header"]["revision"]},
        "kvs": [
            {
                "key": b64(prefix),
                "create_revision": revision,
                "mod_revision": revision,
                "version": "1",
                "value": b64(b"\x00\xff"),
            }
        ],
        "count": "1",
    }
    assert (await client.get(prefix)).kvs[0].mod_revision == int(revision)


async def test_what_has_its_default_is_left_out(web, prefix):
    found = await web.result("kv/range", {"key": b64(prefix)})
    assert found.keys() == {"header"}


async def test_numbers_of_32_bits_are_numbers(web):
    found = await web.result("maintenance/hashkv")
    assert isinstance(found["hash"], int)
    assert isinstance(found["hash_revision"], str)


async def test_lists_of_texts_are_lists_of_texts(web, server):
    (member,) = (await web.result("cluster/member/list"))["members"]
    assert member["clientURLs"] == [f"http://{server.target}"]
    assert member["ID"].isdigit()


@pytest.mark.parametrize("key", [b"\xfb\xff\xfe", b"a", b"ab", b"abc"])
async def test_either_alphabet_of_base64_is_taken_with_padding_or_without(web, prefix, key):
    await web.result("kv/put", {"key": b64(prefix + key)})
    standard = b64(prefix + key)
    url_safe = standard.replace("+", "-").replace("/", "_")
    for text in (standard, url_safe, standard.rstrip("="), url_safe.rstrip("=")):
        assert (await web.result("kv/range", {"key": text}))["count"] == "1"


@pytest.mark.parametrize(
    "fields",
    [
        {"range_end": "AA==", "sort_order": "DESCEND", "sort_target": "CREATE", "limit": "2"},
        {"rangeEnd": "AA==", "sortOrder": 2, "sortTarget": 2, "limit": 2},
        {"range_end": "AA==", "limit": 2.0, "countOnly": None},
        {"range_end": "AA==", "limit": "2e0", "nobody": {"knows": ["this", {"field": 1}]}},
        {"range_end": "AA==", "sort_order": "NOBODY_KNOWS_THIS", "limit": 2},
    ],
)
async def test_fields_may_be_written_in_many_ways(web, prefix, high, fields):
    for n in range(3):
        await web.result("kv/put", {"key": b64(high + b"%d" % n)})
    found = await web.result("kv/range", {"key": b64(high), **fields})
    assert (len(found["kvs"]), found["count"], found["more"]) == (2, "3", True)


@pytest.mark.parametrize("body", [b"", b"  \n", b"{}", b"{} what follows is not looked at"])
async def test_an_empty_body_is_an_empty_request(web, body):
    refusal = 400, 3, "etcdserver: key is not provided"
    assert (await web.call("kv/range", body)).refusal == refusal


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"3",
        b'"text"',
        b"xyz",
        b"{",
        b'{"key"',
        b'{"key":"YQ==",}',
        b"{'key':'YQ=='}",
        b'{"key":"YQ==","key":"YQ=="}',
        b'{"range_end":"YQ==","rangeEnd":"YQ=="}',
        b'{"key":"!!!"}',
        b'{"key":"YQ="}',
        b'{"key":"+_=="}',
        b'{"key":1}',
        b'{"key":["YQ=="]}',
        b'{"key":"YQ==","limit":1.5}',
        b'{"key":"YQ==","limit":"one"}',
        b'{"key":"YQ==","limit":" 1"}',
        b'{"key":"YQ==","limit":01}',
        b'{"key":"YQ==","limit":NaN}',
        b'{"key":"YQ==","limit":1e99}',
        b'{"key":"YQ==","limit":9223372036854775808}',
        b'{"key":"YQ==","limit":true}',
        b'{"key":"YQ==","serializable":"true"}',
        b'{"key":"YQ==","serializable":1}',
        b'{"key":"YQ==","sort_order":1.5}',
        b'{"key":"YQ==","sort_order":2147483648}',
        b'{"key":"YQ==","sort_order":true}',
        b'{"key":"\xff"}',
        b'{"key":"\\ud800"}',
    ],
)
async def test_what_is_no_such_request_is_an_invalid_argument(web, body):
    answer = await web.call("kv/range", body)
    status, code, text = answer.refusal
    assert (status, code) == (400, 3)
    assert text
    assert not text.startswith("etcdserver:")


@pytest.mark.parametrize(
    "body",
    [
        {"success": [None]},
        {"success": {}},
        {"success": [[]]},
        {"success": [{"request_put": {}, "request_range": {}}]},
        {"compare": [{"key": "YQ==", "version": 1, "value": ""}]},
        {"compare": ["YQ=="]},
    ],
)
async def test_what_is_no_such_transaction_is_an_invalid_argument(web, body):
    status, code, text = (await web.call("kv/txn", body)).refusal
    assert (status, code) == (400, 3)
    assert text.startswith("proto:")


async def test_a_transaction_nests_compares_and_answers(web, prefix):
    key = b64(prefix)
    request = {
        "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": 0}],
        "success": [
            {"request_put": {"key": key, "value": "YQ=="}},
            {"request_txn": {"success": [{"request_range": {"key": key}}]}},
        ],
        "failure": [{"requestDeleteRange": {"key": key, "prevKv": True}}],
    }
    first = await web.result("kv/txn", request)
    revision = first["header"]["revision"]
    assert first["succeeded"]
    put, nested = first["responses"]
    assert put == {"response_put": {"header": {"revision": revision}}}
    kv = nested["response_txn"]["responses"][0]["response_range"]["kvs"][0]
    assert (kv["mod_revision"], kv["value"]) == (revision, "YQ==")
    second = await web.result("kv/txn", request)
    assert "succeeded" not in second
    (deleted,) = second["responses"]
    assert deleted["response_delete_range"]["deleted"] == "1"
    assert deleted["response_delete_range"]["prev_kvs"][0]["key"] == key


async def test_every_method_has_its_path(web):
    for path in ROUTES:
        answer = await web.send("GET", path)
        assert answer.refusal == (501, 12, "Method Not Allowed"), path
    for path in ("/v3/", "/v3/kv", "/v3/kv/range/", "/v3/kv/rangestream", "/v3/lock"):
        assert (await web.send("POST", path)).refusal == (404, 5, "Not Found"), path


async def test_the_path_of_older_clients_is_taken_and_that_of_old_ones_not(web, prefix):
    body = b'{"key":"%b"}' % b64(prefix).encode()
    assert (await web.send("POST", "/v3beta/kv/put", body)).status == 200
    answer = await web.send("POST", "/v3alpha/kv/put", body)
    assert (answer.status, answer.value) == (404, "404 page not found\n")


async def test_each_code_has_its_status(web, prefix):
    lease = (await web.result("lease/grant", {"TTL": 60}))["ID"]
    refusals = {
        "lease/grant": ({"TTL": 60, "ID": lease}, 400, 9, "etcdserver: lease already exists"),
        "lease/revoke": ({"ID": "404"}, 404, 5, "etcdserver: requested lease not found"),
        "kv/range": (
            {"key": b64(prefix), "revision": 1 << 60},
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        "election/leader": ({"name": b64(prefix)}, 500, 2, "election: no leader"),
    }
    for path, (request, *refusal) in refusals.items():
        assert (await web.call(path, request)).refusal == tuple(refusal)


async def test_a_lease_lives_through_the_gateway(web, prefix):
    granted = await web.result("lease/grant", {"TTL": "60"})
    lease = granted["ID"]
    assert granted["TTL"] == "60"
    await web.result("kv/put", {"key": b64(prefix), "lease": lease})
    for path in ("lease/timetolive", "kv/lease/timetolive"):
        told = await web.result(path, {"ID": lease, "keys": True})
        assert (told["grantedTTL"], told["keys"]) == ("60", [b64(prefix)])
    for path in ("lease/leases", "kv/lease/leases"):
        assert {"ID": lease} in (await web.result(path))["leases"]
    await web.result("kv/lease/revoke", {"ID": lease})
    assert "kvs" not in await web.result("kv/range", {"key": b64(prefix)})


async def test_two_bounds_on_the_size_of_a_request(web, prefix):
    request = {"key": b64(prefix), "value": b64(bytes(1_600_000))}
    refusal = 400, 3, "etcdserver: request is too large"
    assert (await web.call("kv/put", request)).refusal == refusal
    request["value"] = b64(bytes(3 << 20))
    status, code, text = (await web.call("kv/put", request)).refusal
    assert (status, code) == (429, 8)
    assert text.endswith(" vs. 2097152)")
    assert text.startswith("grpc: received message larger than max")


async def test_a_large_value_comes_back_whole(web, prefix):
    value = b64(bytes(range(256)) * 4000)
    await web.result("kv/put", {"key": b64(prefix), "value": value})
    assert (await web.result("kv/range", {"key": b64(prefix)}))["kvs"][0]["value"] == value


async def test_a_deadline_comes_in_a_header(web, prefix, client):
    await web.result("lock/lock", {"name": b64(prefix)})
    answer = await web.call("lock/lock", {"name": b64(prefix)}, Grpc_Timeout="300m")
    assert answer.status == 504
    assert answer.value["code"] == 4
    await queued(client, prefix, 1)
    answer = await web.call("kv/range", {"key": "YQ=="}, Grpc_Timeout="soon")
    assert (answer.status, answer.value["code"]) == (400, 3)


async def test_a_client_that_hangs_up_leaves_the_queue_of_a_lock(web, client, prefix, server):
    await web.result("lock/lock", {"name": b64(prefix)})
    async with web.stream("lock/lock", {"name": b64(prefix)}):
        await queued(client, prefix, 2)
    await queued(client, prefix, 1)


async def test_locks_and_elections_are_served(web, prefix):
    lease = (await web.result("lease/grant", {"TTL": 60}))["ID"]
    held = await web.result("lock/lock", {"name": b64(prefix + b"l"), "lease": lease})
    assert held["key"] == b64(prefix + b"l/%x" % int(lease))
    assert (await web.result("lock/unlock", {"key": held["key"]})).keys() == {"header"}
    name = b64(prefix + b"e")
    won = await web.result("election/campaign", {"name": name, "lease": lease, "value": "YQ=="})
    assert won["leader"].keys() == {"name", "key", "rev", "lease"}
    await web.result("election/proclaim", {"leader": won["leader"], "value": "Yg=="})
    seen = await web.result("election/leader", {"name": name})
    assert (seen["kv"]["value"], seen["kv"]["lease"]) == ("Yg==", lease)
    await web.result("election/resign", {"leader": won["leader"]})


async def test_answers_say_whence_they_come_and_who_may_read_them(web, prefix):
    answer = await web.call("kv/put", {"key": b64(prefix)})
    assert answer.headers["grpc-metadata-content-type"] == "application/grpc"
    asked = await web.send("OPTIONS", "/v3/kv/put")
    assert (asked.status, asked.value) == (200, "")
    for headers in (answer.headers, asked.headers, (await web.send("GET", "/version")).headers):
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-allow-methods"] == "POST, GET, OPTIONS, PUT, DELETE"
        assert headers["access-control-allow-headers"] == "accept, content-type, authorization"


async def test_pages_and_hosts_may_be_named(kind, launch):
    server = launch(kind, "--cors=https://a.example:443", "--host-whitelist=127.0.0.1,b.example")
    web = JsonClient(f"http://{server.target}")
    allowed = await web.send("POST", "/v3/kv/range", b"{}", {"Origin": "https://a.example:443"})
    assert allowed.headers["access-control-allow-origin"] == "https://a.example:443"
    other = await web.send("POST", "/v3/kv/range", b"{}", {"Origin": "https://c.example:443"})
    assert other.status == 400
    assert "access-control-allow-origin" not in other.headers
    assert (await web.send("GET", "/version", headers={"Host": "b.example:99"})).status == 200
    assert (await web.send("GET", "/version", headers={"Host": "c.example"})).status == 421
    await web.close()
    server.close()


async def test_the_gateway_can_be_left_out(kind, launch):
    server = launch(kind, "--enable-grpc-gateway=false")
    web = JsonClient(f"http://{server.target}")
    answer = await web.call("kv/range", {"key": "YQ=="})
    assert (answer.status, answer.value) == (404, "404 page not found\n")
    assert (await web.send("GET", "/version")).status == 200
    await web.close()
    server.close()
