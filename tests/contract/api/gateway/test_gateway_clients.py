"""What clients that speak to the JSON gateway do, in the shapes of their requests.

Patroni's own client (patroni/dcs/etcd3.py), and etcd3gw, which OpenStack's Calico driver uses.
"""

from __future__ import annotations

import asyncio

from tests.support.json_client import JsonClient, b64


async def test_patroni_elects_a_leader_and_follows_the_cluster(web, prefix):
    version = (await web.send("GET", "/version")).value["etcdserver"]
    assert tuple(map(int, version.split("."))) >= (3, 4)
    members = (await web.result("cluster/member/list"))["members"]
    assert all(member["clientURLs"] for member in members)

    lease = (await web.result("lease/grant", {"TTL": 30}))["ID"]
    leader, end = b64(prefix + b"leader"), b64(prefix[:-1] + b"0")
    take = {
        "compare": [{"key": leader, "target": "CREATE", "create_revision": "0"}],
        "success": [{"request_put": {"key": leader, "value": b64(b"node1"), "lease": lease}}],
    }
    taken = await web.result("kv/txn", take)
    assert taken["succeeded"]
    assert "succeeded" not in await web.result("kv/txn", take)

    found = await web.result("kv/range", {"key": b64(prefix), "range_end": end})
    (kv,) = found["kvs"]
    assert (kv["lease"], kv["mod_revision"]) == (lease, taken["header"]["revision"])
    start = int(found["header"]["revision"]) + 1
    watch = {"key": b64(prefix), "range_end": end, "start_revision": str(start)}
    async with web.stream("watch", {"create_request": watch}) as stream:
        assert (await stream.result())["created"]
        mine = {"key": leader, "target": "MOD", "mod_revision": kv["mod_revision"]}
        update = {
            "compare": [mine, {"key": leader, "target": "VALUE", "value": b64(b"node1")}],
            "success": [
                {"request_put": {"key": b64(prefix + b"status"), "value": b64(b'{"a":1}')}}
            ],
            "failure": [{"request_range": {"key": leader}}],
        }
        assert (await web.result("kv/txn", update))["succeeded"]
        (event,) = (await stream.result())["events"]
        assert event["kv"]["key"] == b64(prefix + b"status")

        renewed = await web.call("lease/keepalive", {"ID": lease})
        assert (renewed.status, renewed.value["result"]["TTL"]) == (200, "30")
        gone = await web.call("lease/keepalive", {"ID": "404"})
        assert "TTL" not in gone.value["result"], "Patroni takes that for an expired lease"

        drop = {"compare": [mine], "success": [{"request_delete_range": {"key": leader}}]}
        dropped = await web.result("kv/txn", drop)
        assert dropped["responses"][0]["response_delete_range"]["deleted"] == "1"
        (event,) = (await stream.result())["events"]
        assert event["type"] == "DELETE"
    refused = await web.call("kv/put", {"key": leader, "value": "", "lease": "404"})
    assert refused.refusal == (404, 5, "etcdserver: requested lease not found")


async def test_calico_locks_lists_and_compacts(web, prefix):
    assert (await web.result("maintenance/status"))["leader"]
    lease = (await web.result("lease/grant", {"TTL": 10, "ID": 0}))["ID"]
    lock = b64(prefix + b"lock")
    acquire = {
        "compare": [{"key": lock, "result": "EQUAL", "target": "CREATE", "create_revision": 0}],
        "success": [{"request_put": {"key": lock, "value": b64(b"uuid"), "lease": lease}}],
        "failure": [{"request_range": {"key": lock}}],
    }
    assert (await web.result("kv/txn", acquire))["succeeded"]
    held = await web.result("kv/txn", acquire)
    assert held["responses"][0]["response_range"]["kvs"][0]["value"] == b64(b"uuid")
    left = await web.result("kv/lease/timetolive", {"ID": lease, "keys": True})
    assert (left["keys"], left["grantedTTL"]) == ([lock], "10")

    keys = [b64(prefix + b"e/%d" % n) for n in range(3)]
    for key in keys:
        await web.result("kv/put", {"key": key, "value": b64(b"{}")})
    listing = {
        "key": b64(prefix + b"e/"),
        "range_end": b64(prefix + b"e0"),
        "sort_order": "DESCEND",
        "sort_target": "KEY",
    }
    found = await web.result("kv/range", listing)
    assert [kv["key"] for kv in found["kvs"]] == keys[::-1]
    at = found["header"]["revision"]
    replace = {
        "compare": [
            {
                "key": keys[0],
                "result": "EQUAL",
                "target": "MOD",
                "mod_revision": found["kvs"][2]["mod_revision"],
            }
        ],
        "success": [{"request_put": {"key": keys[0], "value": b64(b'{"n":1}')}}],
        "failure": [],
    }
    assert (await web.result("kv/txn", replace))["succeeded"]
    then = await web.result("kv/range", {**listing, "revision": at, "keys_only": True})
    assert [kv["version"] for kv in then["kvs"]] == ["1"] * 3
    await web.result("kv/compaction", {"revision": str(int(at) + 1), "physical": False})
    refused = await web.call("kv/range", {**listing, "revision": at})
    text = "etcdserver: mvcc: required revision has been compacted"
    assert refused.refusal == (400, 11, text)

    watch = {"key": listing["key"], "range_end": listing["range_end"], "start_revision": at}
    async with web.stream("watch", {"create_request": watch}) as stream:
        assert (await stream.result())["created"]
        ended = await stream.result()
        assert (ended["canceled"], int(ended["compact_revision"])) == (True, int(at) + 1)
    deleted = await web.result("kv/deleterange", {**listing, "prev_kv": True})
    assert (deleted["deleted"], len(deleted["prev_kvs"])) == ("3", 3)
    await web.result("lease/revoke", {"ID": lease})
    assert "kvs" not in await web.result("kv/range", {"key": lock})


async def test_many_clients_at_once(web, server, prefix):
    others = [JsonClient(f"http://{server.target}") for _ in range(10)]

    async def write(n: int) -> None:
        for m in range(10):
            await others[n].result("kv/put", {"key": b64(prefix + b"%d/%d" % (n, m))})

    await asyncio.gather(*(write(n) for n in range(10)))
    counted = {"key": b64(prefix), "range_end": b64(prefix[:-1] + b"0"), "count_only": True}
    assert (await web.result("kv/range", counted))["count"] == "100"
    for other in others:
        await other.close()
